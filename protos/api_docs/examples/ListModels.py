from velatura.client import Client

with Client("localhost:8500") as client:
    for model in client.list_models().models:
        print(model.name, model.version, model.provider, model.license, model.ready)
