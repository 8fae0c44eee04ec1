#!/usr/bin/env python3
"""Checks of the charts, one a command; what is wrong, a line each, and the number of things looked at.

    check.py lint      helm lint --strict, with the values of every case
    check.py install   helm install --dry-run, of a clone and of a package
    check.py right     cases.yaml: rendered for each version of Kubernetes, valid there, and as expected
    check.py wrong     wrong.yaml: refused, and in those words
    check.py budget    the arithmetic of the grace period, over a grid
    check.py golden    golden/ is what is rendered (`--update` writes it)
    check.py schema    values.schema.json knows and describes every value, and no others
    check.py promql    alerts and panels are PromQL
    check.py environments   JSON: the environment of each case's container, for drainit to judge
    check.py pod VALUES     JSON: the pod of these values (JSON, too), to be run
"""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import helm_python
import promql_parser
import yaml

import apiserver
import budget
from engine import CHART, CLUSTERS, LIBRARY, Chart, Refused, lint, read_cases

HERE = Path(__file__).parent


def clusters_of(case):
    since = [int(number) for number in str(case.get("since", CLUSTERS[0])).split(".")]
    return [cluster for cluster in CLUSTERS if [int(number) for number in cluster.split(".")] >= since]


def check_lint():
    found, done = [], 0
    for case in [{"name": "no values"}, *read_cases("cases.yaml")]:
        done += 1
        cluster = clusters_of(case)[-1]
        found += [f"{case['name']}: {said}" for said in lint(CHART, case.get("values"), cluster)]
    with consumer() as chart:
        found += [f"consumer: {said}" for said in lint(chart)]
    found += [f"drainit-lib: {said}" for said in lint(LIBRARY)]
    return found, done


def check_install():
    """`helm install --dry-run=client` of what a clone has, and of what `helm package` makes of it."""
    found, done = [], 0
    for dependency in helm_python.dependency_list(CHART):
        if dependency["status"] != "unpacked":
            found.append(f"charts/{dependency['name']} is {dependency['status']}")
    with tempfile.TemporaryDirectory() as folder, helm_python.Config(namespace="shop", storage_driver="memory") as cluster:
        for chart in [str(CHART), helm_python.package(CHART, destination=folder)]:
            done += 1
            release = cluster.install(chart, "web", {}, dry_run="client")
            kinds = [manifest["kind"] for manifest in yaml.safe_load_all(release["manifest"]) if manifest]
            if "Deployment" not in kinds or "helm test" not in release["notes"]:
                found.append(f"{chart}: {release}")
    return found, done


def check_right():
    chart = Chart()
    found, done = [], 0
    for case in read_cases("cases.yaml"):
        for cluster in clusters_of(case):
            done += 1
            about = f"{case['name']} ({cluster})"
            try:
                rendering = chart.render(case.get("values"), cluster)
            except Refused as refused:
                found.append(f"{about} is refused: {refused}")
                continue
            found += [f"{about}: {fault}" for fault in right_faults(case, rendering, cluster)]
    return found, done


def right_faults(case, rendering, cluster):
    found = apiserver.faults(rendering, cluster) + budget.env_faults(rendering)
    if case.get("restricted", True):
        for pod in [rendering.pod, *(pod["spec"] for pod in rendering.of("Pod"))]:
            found += [f"not restricted: {fault}" for fault in apiserver.restricted_faults(pod)]
    for path, expected in (case.get("expect") or {}).items():
        got = look(rendering, path)
        if got != expected:
            found.append(f"{path} is {got!r}, not {expected!r}")
    for text in case.get("notes") or []:
        if text not in rendering.notes:
            found.append(f"the notes do not say {text!r}: {rendering.notes}")
    return found


def look(rendering, path):
    """What is at `Kind/…` (of the first of that kind), `pod/…`, `container/…`, `env/NAME` or `kinds`; None, if nothing is."""
    where, *steps = path.split("/")
    if where == "kinds":
        return sorted(manifest["kind"] for manifest in rendering.manifests)
    places = {"pod": rendering.pod, "container": rendering.container, "env": rendering.env}
    here = places[where] if where in places else next(iter(rendering.of(where)), None)
    for step in steps:
        # A slash in a key is written ~.
        step = step.replace("~", "/")
        if isinstance(here, list):
            named = [each for each in here if isinstance(each, dict) and each.get("name") == step]
            here = named[0] if named else here[int(step)] if step.isdigit() and int(step) < len(here) else None
        elif isinstance(here, dict):
            here = here.get(step)
        else:
            return None
    return here


def check_wrong():
    chart = Chart()
    found, done = [], 0
    for case in read_cases("wrong.yaml"):
        done += 1
        try:
            chart.render(case["values"], str(case.get("cluster", CLUSTERS[-1])))
        except Refused as refused:
            sentence = " ".join(str(refused).split())
            if case["says"] not in sentence:
                found.append(f"{case['name']}: says {sentence!r}, not {case['says']!r}")
            # A schema's own words name the place; a template's the value and what would fit.
            if "at '" not in sentence and "; takes " not in sentence:
                found.append(f"{case['name']}: {sentence!r} does not say what would fit")
        else:
            found.append(f"{case['name']} is not refused")
    return found, done


def check_budget():
    # The library does it, and a chart with nothing else is rendered sooner.
    with consumer() as chart:
        return budget.sweep(Chart(chart))


class consumer:
    """A chart as a team has it, with the library in its charts/."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        chart = Path(self.folder.name) / "consumer"
        shutil.copytree(HERE / "consumer", chart)
        shutil.copytree(LIBRARY, chart / "charts/drainit-lib")
        return chart

    def __exit__(self, *_):
        self.folder.cleanup()


def check_golden(update=False):
    found = []
    texts = {}
    for case in read_cases("cases.yaml"):
        if case.get("golden"):
            texts[case["golden"]] = Chart().render(case.get("values"), clusters_of(case)[-1])
    with consumer() as chart:
        texts["consumer"] = Chart(chart).render()
        found += apiserver_faults_of(texts["consumer"])
    folder = HERE / "golden"
    for name, rendering in texts.items():
        path = folder / f"{name}.yaml"
        if update:
            path.write_text(rendering.as_text())
        elif not path.exists() or path.read_text() != rendering.as_text():
            found.append(f"{path.relative_to(HERE)} is not what is rendered: tests/chart/check.py golden --update, and read the difference")
    strangers = {path.stem for path in folder.glob("*.yaml")} - texts.keys()
    found += [f"golden/{name}.yaml belongs to no case" for name in strangers]
    return found, len(texts)


def apiserver_faults_of(rendering):
    faults = [fault for cluster in CLUSTERS for fault in apiserver.faults(rendering, cluster)]
    return faults + budget.env_faults(rendering)


def check_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    found, done = [], 0

    def compare(schema, value, path):
        nonlocal done
        done += 1
        if path and not schema.get("description"):
            found.append(f"{path} has no description")
        known = schema.get("properties")
        if known is None:
            return
        if schema.get("additionalProperties") is not False:
            found.append(f"{path} takes anything")
        # Of a list's entries, and optional ones, values.yaml has none.
        found.extend(f"{path}.{name} is in no schema" for name in (value or {}).keys() - known.keys())
        for name, below in known.items():
            compare(below, (value or {}).get(name), f"{path}.{name}".lstrip("."))
            if "items" in below:
                compare({"description": "an entry", **below["items"]}, None, f"{path}.{name}[]")

    compare(schema, values, "")
    block = values["drainit"]
    if block != yaml.safe_load((LIBRARY / "values.yaml").read_text()):
        found.append("drainit in values.yaml is not what values.yaml of drainit-lib has")
    return found, done


def check_promql():
    found, done = [], 0
    alerts = yaml.safe_load((CHART / "alerts/drainit.yaml").read_text())
    expressions = [(alert["alert"], alert["expr"].replace("SERIES", 'namespace="n",pod=~"p-.*"')) for alert in alerts]
    dashboard = json.loads((CHART / "dashboards/drainit.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = re.sub(r"\$__(rate_interval|range)", "5m", target["expr"])
            expressions.append((panel["title"], text))
    for name, text in expressions:
        done += 1
        try:
            promql_parser.parse(text)
        except Exception as error:  # The parser has no class of its own for it.
            found.append(f"{name}: {error}: {text}")
    numbers = [panel["id"] for panel in dashboard["panels"]]
    if len(set(numbers)) < len(numbers):
        found.append("two panels have the same id")
    return found, done


def print_environments():
    chart = Chart()
    environments = []
    for case in read_cases("cases.yaml"):
        env = chart.render(case.get("values"), clusters_of(case)[-1]).env
        plain = {name: value for name, value in env.items() if isinstance(value, str)}
        environments.append({"name": case["name"], "env": plain})
    print(json.dumps(environments))


def main(command, *rest):
    if command == "environments":
        print_environments()
        return 0
    if command == "pod":
        print(json.dumps(Chart().render(json.loads(rest[0])).pod))
        return 0
    checks = {
        "lint": check_lint,
        "install": check_install,
        "right": check_right,
        "wrong": check_wrong,
        "budget": check_budget,
        "golden": lambda: check_golden("--update" in rest),
        "schema": check_schema,
        "promql": check_promql,
    }
    found, done = checks[command]()
    for fault in found:
        print(fault)
    print(f"{command}: {done} looked at, {len(found)} wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
