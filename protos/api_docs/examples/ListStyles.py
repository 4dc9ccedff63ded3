from velatura.client import Client

with Client("localhost:8500") as client:
    print([style.name for style in client.list_styles()])
