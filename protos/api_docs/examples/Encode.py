from velatura.client import Client

with Client("localhost:8500") as client:
    token = client.encode("face.png").latent_token
    for strength in (0.0, 0.5, 1.0):  # a slider: one pass of the generator each
        result = client.edit_image("face.png", {"smile": strength}, latent_token=token)
        result.save(f"smile-{strength}.png")
