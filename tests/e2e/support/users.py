"""Clients: rows of the token file and of the table `users`."""

import json


def user(token, *, priority=5, threshold=10, **more):
    return {"token": token, "name": more.pop("name", token), "priority": priority, "threshold": threshold, **more}


def write_tokens(path, users):
    """Writes the token file in one step, as a careful operator does: a reader never sees half of it."""
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps({"users": users}))
    scratch.rename(path)
    return path
