from velatura.client import Client

with Client("localhost:8500") as client:
    for sample in client.generate(range(1, 5), truncation_psi=0.7, edits={"smile": 1.0}):
        sample.save(f"face-{sample.seed}.png")
