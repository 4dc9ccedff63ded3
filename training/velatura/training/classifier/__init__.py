"""The judge: reads every attribute of an avatar; it has seen renders only."""
