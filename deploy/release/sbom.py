"""What is in the binary, as CycloneDX 1.6 JSON (ECMA-424): `sbom.py VERSION BINARY` on stdout. No time and no random
number is in it, so that the same sources give the same document."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys
import uuid


def host():
    text = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return re.search(r"^host: (.*)$", text, re.M)[1]


def linked(metadata):
    """The root's dependencies, and theirs, without those that only build or test: `normal` ones, as cargo calls them."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    edges, found, ahead = {}, set(), [root]
    while ahead:
        node = ahead.pop()
        if node in found:
            continue
        found.add(node)
        deps = [
            dep["pkg"]
            for dep in nodes[node]["deps"]
            if any(kind["kind"] is None for kind in dep["dep_kinds"])
        ]
        edges[node] = sorted(deps)
        ahead += deps
    return root, edges


def licenses(package):
    text = package.get("license")
    return [{"expression": text.replace("/", " OR ")}] if text else []


def main(version, binary):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host()]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    checksums = {
        (name, number): digest
        for name, number, digest in re.findall(
            r'name = "(.*)"\nversion = "(.*)"\nsource = .*\nchecksum = "(.*)"', pathlib.Path("Cargo.lock").read_text()
        )
    }
    root, edges = linked(metadata)
    reference = {key: f"pkg:cargo/{packages[key]['name']}@{packages[key]['version']}" for key in edges}
    components = []
    for key in sorted(edges, key=reference.get):
        package = packages[key]
        if key == root:
            continue
        component = {
            "type": "library",
            "bom-ref": reference[key],
            "name": package["name"],
            "version": package["version"],
            "purl": reference[key],
            "licenses": licenses(package),
        }
        digest = checksums.get((package["name"], package["version"]))
        if digest:
            component["hashes"] = [{"alg": "SHA-256", "content": digest}]
        components.append(component)
    digest = hashlib.sha256(pathlib.Path(binary).read_bytes()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference[root],
                "name": "drainit",
                "version": version,
                "purl": reference[root],
                "licenses": licenses(packages[root]),
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        },
        "components": components,
        "dependencies": [
            {"ref": reference[key], "dependsOn": [reference[dep] for dep in edges[key]]}
            for key in sorted(edges, key=reference.get)
        ],
    }
    json.dump(document, sys.stdout, indent=1)
    print()


main(*sys.argv[1:])
