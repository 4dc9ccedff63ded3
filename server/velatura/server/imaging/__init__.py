"""Images as arrays: codecs, regions, compositing, colour, tiling. numpy, Pillow, OpenCV only."""
