"""Makes an image of files of this machine, as an archive that `docker load`, `podman load`, `ctr images import` and `kind load
image-archive` take. It needs no container engine and no registry.

    image.py ARCHIVE NAME:TAG --entrypoint WORD... --add SOURCE=DESTINATION... [--program PATH...] [--package NAME...]

A program comes with the libraries that it is linked to, a package with all of its files but documentation.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import subprocess
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LEFT_OUT = re.compile(r"^/usr/share/(doc|man|lintian|bug|locale|info)/|/__pycache__/|/test/|/idlelib/|/tkinter/")


def output(*words):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def libraries(path):
    """What the dynamic linker would load, itself included; nothing for a static program."""
    listed = subprocess.run(["ldd", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


class Layer:
    def __init__(self):
        self.buffer = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)
        self.there = set()

    def parents(self, path):
        for parent in reversed(pathlib.PurePosixPath(path).parents):
            self.directory(str(parent))

    def directory(self, path, mode=0o755):
        path = path.strip("/")
        if path and path not in self.there:
            self.there.add(path)
            info = tarfile.TarInfo(path)
            info.type, info.mode = tarfile.DIRTYPE, mode
            self.tar.addfile(info)

    def file(self, source, destination):
        """What a link leads to goes where the link is, so that a merged /usr need not be thought of."""
        name = destination.strip("/")
        source = os.path.realpath(source)
        if name in self.there or not os.path.isfile(source):
            return
        self.parents(name)
        self.there.add(name)
        info = tarfile.TarInfo(name)
        info.size = os.path.getsize(source)
        info.mode = 0o755 if os.access(source, os.X_OK) else 0o644
        with open(source, "rb") as content:
            self.tar.addfile(info, content)

    def program(self, path):
        self.file(path, path)
        for library in libraries(path):
            self.file(library, library)

    def package(self, name):
        for path in output("dpkg-query", "--listfiles", name).splitlines():
            if not LEFT_OUT.search(path):
                self.file(path, path)
                if path.endswith(".so"):
                    for library in libraries(path):
                        self.file(library, library)

    def bytes(self):
        self.tar.close()
        return self.buffer.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("name")
    parser.add_argument("--entrypoint", nargs="+", default=[])
    parser.add_argument("--add", action="append", default=[])
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--package", action="append", default=[])
    wanted = parser.parse_args()

    layer = Layer()
    layer.directory("tmp", 0o1777)
    for pair in wanted.add:
        source, destination = pair.split("=", 1)
        layer.file(source, destination)
    for path in wanted.program:
        layer.program(path)
    for name in wanted.package:
        layer.package(name)
    content = layer.bytes()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": wanted.entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
            "history": [{"created_by": "tests/kubernetes/image.py"}],
        },
        sort_keys=True,
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [wanted.name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(wanted.archive, "w") as archive:
        for name, data in [(config_name, config), ("layer.tar", content), ("manifest.json", manifest)]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    print(f"{wanted.name}: {wanted.archive}, {len(content) / 1e6:.0f} MB")


main()
