"""Renders the chart with each preset, by Helm's own engine: a line of JSON for each, its Deployment."""

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/chart"))

from engine import Chart  # noqa: E402

for preset in sorted((ROOT / "deploy/presets").glob("*.yaml")):
    manifests = Chart().render(yaml.safe_load(preset.read_text())).manifests
    deployment = next(manifest for manifest in manifests if manifest["kind"] == "Deployment")
    print(json.dumps({"preset": preset.stem, "object": deployment}))
