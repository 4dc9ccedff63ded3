from velatura.client import Client

with Client("localhost:8500") as client:
    for direction in client.list_directions():
        print(direction.name, direction.min_strength, direction.max_strength, direction.regions)
