"""Validates what it reads against Kubernetes' schemas, strictly: `validate.py MINOR... < manifests`.

A line of JSON for each object: `versions`, those that have a schema for it; `wrong`, what does not fit; `object` itself.
Without a version it only turns YAML into JSON.
"""

import json
import sys

import kubernetes_validate
import yaml

for document in yaml.safe_load_all(sys.stdin):
    if document is None:
        continue
    versions, wrong = [], []
    for minor in sys.argv[1:]:
        try:
            kubernetes_validate.validate(document, minor, strict=True)
            versions.append(minor)
        except kubernetes_validate.SchemaNotFoundError:
            continue
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(step) for step in error.path)
            wrong.append(f"{minor}: {where}: {error.message}")
    print(json.dumps({"versions": versions, "wrong": wrong, "object": document}))
