"""The avatar data set: faces composed from named parts, with exact labels and exact masks."""
