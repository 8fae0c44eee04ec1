"""What an API server refuses: by Kubernetes' schemas, and by the rules that are in no schema."""

import functools
import re
from pathlib import Path

import jsonschema
import kubernetes_validate.utils
import yaml

# Megabytes of JSON, read for every manifest otherwise.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)

CUSTOM = yaml.safe_load((Path(__file__).parent / "custom_resources.yaml").read_text())

NAME = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
LABEL = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")


def faults(rendering, cluster):
    """Everything that is wrong with these manifests, in that version of Kubernetes."""
    found = []
    seen = set()
    for manifest in rendering.manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        found += [f"{kind} {name}: {fault}" for fault in schema_faults(manifest, cluster)]
        found += [f"{kind} {name}: {fault}" for fault in name_faults(manifest)]
        if (kind, name) in seen:
            found.append(f"{kind} {name} is there twice")
        seen.add((kind, name))
        spec = pod_spec(manifest)
        if spec:
            found += [f"{kind} {name}: {fault}" for fault in pod_faults(spec)]
    return found + selection_faults(rendering)


def schema_faults(manifest, cluster):
    custom = CUSTOM.get(f"{manifest['apiVersion']}/{manifest['kind']}")
    try:
        if custom:
            jsonschema.Draft202012Validator(custom).validate(manifest)
        else:
            kubernetes_validate.utils.validate(manifest, cluster, strict=True)
    except (kubernetes_validate.utils.ValidationError, jsonschema.ValidationError) as error:
        path = ".".join(str(step) for step in error.absolute_path)
        return [f"{path}: {error.message} (Kubernetes {cluster})"]
    except kubernetes_validate.utils.SchemaNotFoundError as error:
        return [error.message]
    return []


def name_faults(manifest):
    metadata = manifest["metadata"]
    found = []
    if not NAME.match(metadata["name"]) or len(metadata["name"]) > 63:
        found.append("its name is none")
    for key, value in metadata.get("labels", {}).items():
        if not LABEL.match(value) or len(value) > 63:
            found.append(f"label {key} cannot be {value!r}")
    for key, value in metadata.get("annotations", {}).items():
        if not isinstance(value, str):
            found.append(f"annotation {key} is no text: {value!r}")
    return found


def pod_spec(manifest):
    if manifest["kind"] == "Pod":
        return manifest["spec"]
    return manifest.get("spec", {}).get("template", {}).get("spec")


def pod_faults(spec):
    found = []
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    containers = (spec.get("initContainers") or []) + spec["containers"]
    found += [f"two volumes {name}" for name in twice(volumes)]
    found += [f"two containers {name}" for name in twice(container["name"] for container in containers)]
    used = set()
    for container in containers:
        name = container["name"]
        mounts = container.get("volumeMounts") or []
        used |= {mount["name"] for mount in mounts}
        found += [f"{name} mounts {mount['name']}, which is no volume" for mount in mounts if mount["name"] not in volumes]
        found += [f"{name} mounts two things on {path}" for path in twice(mount["mountPath"] for mount in mounts)]
        found += [f"{name} has two variables {each}" for each in twice(each["name"] for each in container.get("env") or [])]
        ports = container.get("ports") or []
        names = [port["name"] for port in ports]
        found += [f"{name} has two ports {each}" for each in twice(names) + twice(port["containerPort"] for port in ports)]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in names:
                found.append(f"{name}: {probe} asks port {port}, which it has not")
    found += [f"nobody mounts volume {name}" for name in volumes if name not in used]
    return found


def selection_faults(rendering):
    """Whoever selects pods finds those of the Deployment, and nobody else finds the test's."""
    found = []
    pods = rendering.deployment["spec"]["template"]["metadata"]["labels"]
    strangers = [pod["metadata"]["labels"] for pod in rendering.of("Pod")]
    ports = {port["name"] for container in rendering.pod["containers"] for port in container.get("ports") or []}
    for manifest in rendering.manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "Service":
            wanted = spec["selector"]
            found += [
                f"Service {manifest['metadata']['name']} leads to port {port['targetPort']}, which the pods have not"
                for port in spec["ports"]
                if port["targetPort"] not in ports
            ]
        elif kind == "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"]
        elif kind == "ServiceMonitor":
            chosen = spec["selector"]["matchLabels"].items()
            if not any(chosen <= service["metadata"]["labels"].items() for service in rendering.of("Service")):
                found.append("the ServiceMonitor selects no Service")
            continue
        elif kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            wanted = spec["selector"]["matchLabels"]
        else:
            continue
        if not wanted.items() <= pods.items():
            found.append(f"{kind} does not select the pods: {wanted}")
        if any(wanted.items() <= stranger.items() for stranger in strangers):
            found.append(f"{kind} selects the pod of the test: {wanted}")
    return found


def restricted_faults(spec):
    """What keeps a pod out of a namespace whose Pod Security is `restricted`."""
    found = []
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec.get("volumes") or []:
        found += [f"volume {volume['name']} is {kind}" for kind in volume.keys() - allowed - {"name"}]
    found += [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    pod = spec.get("securityContext", {})
    for container in (spec.get("initContainers") or []) + spec["containers"]:
        own = container.get("securityContext", {})
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "capabilities": own.get("capabilities", {}).get("drop") == ["ALL"] and not own["capabilities"].get("add"),
            "runAsNonRoot": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
            "runAsUser": own.get("runAsUser", pod.get("runAsUser")) != 0,
            "seccompProfile": own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") == "RuntimeDefault",
            # Of the chart, not of that level.
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        }
        found += [f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return found


def twice(names):
    names = list(names)
    return sorted({name for name in names if names.count(name) > 1})
