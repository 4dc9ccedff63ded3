from velatura.client import Client

with Client("localhost:8500") as client:
    print([each.name for each in client.list_region_classes()])
