from velatura.client import Client

with Client("localhost:8500") as client:
    result = client.segment("face.png", with_overlay=True)
    print({area.name: area.share for area in result.areas if area.pixels})
    result.mask("hair").save("hair-mask.png")
