from velatura.client import Client

with Client("localhost:8500") as client:
    result = client.edit_image("face.png", {"smile": 1.0}, region=["mouth", "eyes"], timeout=10)
    result.save("smiling.png")
    print(result.max_difference_outside, result.mean_difference_inside)
