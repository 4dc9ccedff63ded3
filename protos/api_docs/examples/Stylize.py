from pathlib import Path

from velatura.client import Client

with Client("localhost:8500") as client:
    styles = [(Path("painting.jpg"), 0.7), (Path("other.jpg"), 0.3)]
    client.stylize("photo.jpg", styles, strength=0.8, timeout=30).save("painted.jpg")
