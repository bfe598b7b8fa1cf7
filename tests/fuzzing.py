"""JSON files with one field of another type, for every field: a reader takes them or names the file in one line."""

import copy
import json
import re

WRONG = [None, "word", [1, "a"], 1e12, 10**12, -1, True, {"a": {"b": [None]}}]


def variants(content):
    """Every field of a JSON value, at every depth, replaced by each wrong value: (path, value, whole content)."""
    for path in [(), *_paths(content)]:
        for value in WRONG:
            changed = copy.deepcopy(content)
            if not path:
                yield path, value, value
                continue
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = value
            yield path, value, changed


def _paths(content, before=()):
    items = content.items() if isinstance(content, dict) else enumerate(content[:2])
    for key, value in items:
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from _paths(value, (*before, key))


def check_every_field(file, read, names_field=False, accepted=None):
    """Replace every field of a JSON file, and require that `read()` works or names the file in one line."""
    original = file.read_text()
    failures, refused = [], 0
    for path, value, content in variants(json.loads(original)):
        file.write_text(json.dumps(content))
        try:
            read()
        except (ValueError, OSError) as error:
            message, refused = str(error), refused + 1
            if accepted and re.search(accepted, message):
                continue
            if "\n" in message or file.name not in message or (names_field and path and str(path[0]) not in message):
                failures.append(f"{path} = {value!r}: {type(error).__name__}: {message[:300]}")
        except Exception as error:
            failures.append(f"{path} = {value!r}: {type(error).__name__}: {str(error)[:200]}")
    file.write_text(original)
    read()
    assert not failures, f"{len(failures)} of them:\n" + "\n".join(failures)
    assert refused
