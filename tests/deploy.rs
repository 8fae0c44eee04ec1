//! What is in deploy/: valid for the Kubernetes versions that there are, and in agreement with itself and with drainit.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use common::pool::{PoolLaunch, text};
use common::{Exit, Subject, cannot_run, http, pid1};
use serde_json::Value;

/// All that have schemas, from the one on in which native sidecars are no alpha feature any more.
const VERSIONS: [&str; 9] = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The interpreter of a virtual environment that has what is needed, or why there is none.
fn python() -> Result<&'static Path, String> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let output = Command::new(root().join("tests/chart/venv")).output().map_err(|e| e.to_string())?;
        let folder = PathBuf::from(text(&output.stdout).trim());
        if output.status.success() { Ok(folder.join("bin/python")) } else { Err(text(&output.stderr)) }
    });
    found.as_deref().map_err(Clone::clone)
}

/// The objects of a manifest, with what the schemas of these versions say. `None` where they are not to be had.
#[track_caller]
fn objects(manifest: &str, versions: &[&str]) -> Option<Vec<Value>> {
    let python = match python() {
        Ok(python) => python,
        Err(why) => {
            cannot_run(&why);
            return None;
        }
    };
    let mut child = Command::new(python)
        .arg(root().join("tests/deploy/validate.py"))
        .args(versions)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    child.stdin.take().unwrap().write_all(manifest.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
    Some(text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// All of them are right, in each of the versions.
#[track_caller]
fn valid(manifest: &str, versions: &[&str]) -> Option<Vec<Value>> {
    let objects = objects(manifest, versions)?;
    for one in &objects {
        let name = &one["object"]["metadata"]["name"];
        assert_eq!(one["wrong"].as_array().map(Vec::len), Some(0), "{name}: {}", one["wrong"]);
        assert_eq!(one["versions"], serde_json::json!(versions), "{name}");
    }
    Some(objects.into_iter().map(|mut one| one["object"].take()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn variable(container: &Value, name: &str) -> String {
    let variables = container["env"].as_array().expect("variables");
    let value = variables.iter().find(|variable| variable["name"] == name).map(|one| &one["value"]);
    value.and_then(Value::as_str).unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// One patience, an initContainer that brings what is executed, and probes that ask drainit.
#[track_caller]
fn is_wrapped(deployment: &Value) {
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let grace = format!("{}s", pod["terminationGracePeriodSeconds"]);
    assert_eq!(variable(container, "DRAINIT_GRACE"), grace);
    let binary = &pod["initContainers"][0]["command"][2];
    assert_eq!(pod["initContainers"][0]["command"], serde_json::json!(["/drainit", "install", binary]));
    assert_eq!((&container["command"][0], container["command"][1].as_str()), (binary, Some("--")));
    for mounts in [&pod["initContainers"][0]["volumeMounts"], &container["volumeMounts"]] {
        let mount = mounts.as_array().unwrap().iter().find(|mount| mount["name"] == "drainit").unwrap();
        assert!(binary.as_str().unwrap().starts_with(mount["mountPath"].as_str().unwrap()), "{mount}");
    }
    for (probe, path) in
        [("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")]
    {
        assert_eq!(container[probe]["httpGet"]["path"], path);
    }
    assert!(container["lifecycle"].is_null(), "no hook is needed");
}

#[test]
fn plain_manifests() {
    let Some(objects) = valid(&read("deploy/node.yaml"), &VERSIONS) else { return };
    assert_eq!(objects.len(), 4);
    let deployment = of_kind(&objects, "Deployment");
    is_wrapped(deployment);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for selector in [
        &of_kind(&objects, "Service")["spec"]["selector"],
        &of_kind(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &deployment["spec"]["selector"]["matchLabels"],
    ] {
        for (key, value) in selector.as_object().unwrap() {
            assert_eq!(&labels[key], value, "{key}");
        }
    }
    // Pod Security, restricted.
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    for container in [&pod["initContainers"][0], &pod["containers"][0]] {
        assert_eq!(container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    }
}

/// With the options that it has there; what it is asked for comes through the pool's socket.
#[test]
fn the_server_of_the_plain_manifests() {
    if !Path::new("/usr/bin/node").exists() {
        return cannot_run("no /usr/bin/node");
    }
    let Some(objects) = objects(&read("deploy/node.yaml"), &[]) else { return };
    let objects: Vec<_> = objects.into_iter().map(|mut one| one["object"].take()).collect();
    let data = &of_kind(&objects, "ConfigMap")["data"];
    let folder = tempfile::tempdir().unwrap();
    let launch = PoolLaunch::of(pid1());
    let port = launch.port().number.to_string();
    for (name, content) in data.as_object().unwrap() {
        let content = content.as_str().unwrap().replace("/etc/hello", folder.path().to_str().unwrap());
        fs::write(folder.path().join(name), content.replace("8080", &port)).unwrap();
    }
    let server = folder.path().join("server.js");
    let watch = ["--watch", folder.path().to_str().unwrap()];
    let command = ["/usr/bin/node", server.to_str().unwrap()];
    let mut pool = launch
        .options(["--listen", &port, "--workers=2", "--lb-wait=0s"])
        .options(watch)
        .command(command)
        .start();
    pool.wait_ready(2);
    let says = || http::get(pool.address(), "/").map(|answer| answer.body).unwrap_or_default();
    assert!(says().starts_with("hello from "), "{}", says());
    // A ConfigMap that changes: new workers, with what it says now.
    fs::write(folder.path().join("greeting"), "good day\n").unwrap();
    common::until("the new greeting from everybody", || {
        let status = pool.status();
        let over = status["generation"] == 2 && status["rolls"]["rolled"] == 1;
        (over && says().starts_with("good day from ")).then_some(())
    });
    pool.signal(libc::SIGTERM);
    assert_eq!(pool.wait(), Exit::Code(0));
}

#[test]
fn the_kustomize_component_wraps_a_deployment_as_it_is() {
    // Those before 1.21, Debian 12's among them, know no components, and say nothing of kustomize.
    let version = Command::new("kubectl").args(["version", "--client", "--output=json"]).output();
    if !version.is_ok_and(|output| text(&output.stdout).contains("kustomizeVersion")) {
        return cannot_run("no kubectl of 1.21 or later");
    }
    let example = root().join("deploy/kustomize/example");
    let output = Command::new("kubectl").arg("kustomize").arg(&example).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let Some(objects) = valid(&text(&output.stdout), &VERSIONS) else { return };
    assert_eq!(objects.len(), 1, "its own settings are left out");
    is_wrapped(&objects[0]);
    let container = &objects[0]["spec"]["template"]["spec"]["containers"][0];
    let command = ["/opt/drainit/drainit", "--", "python3", "-m", "http.server"];
    assert_eq!(container["command"], serde_json::json!(command));
    assert_eq!(container["args"], serde_json::json!(["8080"]));
    assert_eq!(variable(container, "DRAINIT_LISTEN"), "http=8080");
}

/// As the rollout test renders them: each container has an image of the test's own, and nothing is pulled.
#[test]
fn the_manifests_of_the_rollout_test() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        return cannot_run("no kubectl");
    }
    let render = "import kube, shutil\n\
        k = kube.Kube('somewhere')\n\
        m = 'tests/kubernetes/manifests/'\n\
        print(k.render('deploy/node.yaml'))\n\
        print('---', k.render(m + 'python.yaml', components=['deploy/kustomize/drainit']), sep='\\n')\n\
        for name in ('control', 'injected', 'load'):\n\
        \x20   print('---', k.render(m + name + '.yaml', replace=[('TARGET', 'a'), ('ADDRESS', '10.0.0.1')]), sep='\\n')\n\
        shutil.rmtree(k.folder)\n";
    let mut python = Command::new("python3");
    let output =
        python.args(["-B", "-c", render]).current_dir(root().join("tests/kubernetes")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let Some(objects) = valid(&text(&output.stdout), &VERSIONS) else { return };
    assert_eq!(objects.len(), 11);
    let mut containers = 0;
    for object in &objects {
        assert_eq!(object["metadata"]["namespace"], "somewhere");
        let pod = &object["spec"]["template"]["spec"];
        let lists = [&pod["initContainers"], &pod["containers"]];
        for container in lists.into_iter().filter_map(Value::as_array).flatten() {
            let image = container["image"].as_str().unwrap();
            assert!(image.starts_with("localhost/drainit-test/"), "{image}");
            assert_eq!(container["imagePullPolicy"], "IfNotPresent", "{image}");
            containers += 1;
        }
    }
    assert_eq!(containers, 7);
}

/// And in the versions before, with the group's older names, as deploy/README.md has it.
#[test]
fn the_admission_policy() {
    let policy = read("deploy/admission/policy.yaml");
    let Some(objects) = valid(&policy, &["1.36", "1.37"]) else { return };
    assert_eq!(objects.len(), 4);
    let (mutating, _) = policy.split_once("kind: ValidatingAdmissionPolicy").unwrap();
    let mutating = mutating.rsplit_once("---").unwrap().0;
    for (older, versions) in [("v1beta1", &["1.34", "1.35"][..]), ("v1alpha1", &["1.32", "1.33"])] {
        let manifest = mutating
            .replace("admissionregistration.k8s.io/v1", &format!("admissionregistration.k8s.io/{older}"));
        assert_eq!(valid(&manifest, versions).map(|objects| objects.len()), Some(2), "{older}");
    }
}

/// The budget of each is one that drainit takes as it is: it warns where it has to cut the LB wait.
#[test]
fn presets() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("deploy/presets")).unwrap().flatten() {
        let path = entry.path();
        let Some(values) = objects(&fs::read_to_string(&path).unwrap(), &[]) else { return };
        let drain = &values[0]["object"]["drainit"]["drain"];
        let seconds = |value: &Value| -> u64 {
            value
                .as_str()
                .and_then(|text| text.strip_suffix('s')?.parse().ok())
                .unwrap_or_else(|| panic!("{value}"))
        };
        let (min, max) = (seconds(&drain["lbWait"]["min"]), seconds(&drain["lbWait"]["max"]));
        assert!(min < max && seconds(&drain["lbQuiet"]) <= min, "{}: {drain}", path.display());
        let grace = max + seconds(&drain["timeout"]) + 1;
        let also =
            [("lbQuiet", "--lb-quiet"), ("lbChecks", "--lb-checks"), ("lateResponse", "--late-response")];
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let also = also.iter().filter(|(key, _)| !drain[*key].is_null());
        let output = Command::new(Subject::from_env().path())
            .args([&format!("--grace={grace}s"), &format!("--lb-wait={min}s..{max}s")])
            .args(also.map(|(key, option)| format!("{option}={}", word(&drain[*key]))))
            .args(["--admin=off", "--control=off", "--listen=unix:@drainit/presets", "--restart=never"])
            .args(["--", "true"])
            .env("KUBERNETES_SERVICE_HOST", "10.96.0.1")
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert!(!said.contains("--lb-wait is cut") && output.status.success(), "{}: {said}", path.display());
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.contains("# Figures: "), "{}: where its figures are from", path.display());
        seen += 1;
    }
    assert_eq!(seen, 8);
}

/// The chart takes them, and comes to the same budget.
#[test]
fn presets_in_the_chart() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return cannot_run(&why),
    };
    let output = Command::new(python).arg("-B").arg(root().join("tests/deploy/presets.py")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut seen = 0;
    for line in text(&output.stdout).lines() {
        let rendered: Value = serde_json::from_str(line).unwrap();
        let source = read(&format!("deploy/presets/{}.yaml", rendered["preset"].as_str().unwrap()));
        let Some(values) = objects(&source, &[]) else { return };
        let drain = &values[0]["object"]["drainit"]["drain"];
        let pod = &rendered["object"]["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let [min, max] = ["min", "max"].map(|which| drain["lbWait"][which].as_str().unwrap());
        assert_eq!(variable(container, "DRAINIT_LB_WAIT"), format!("{min}..{max}"), "{line}");
        assert_eq!(variable(container, "DRAINIT_LB_QUIET"), drain["lbQuiet"].as_str().unwrap(), "{line}");
        assert_eq!(
            variable(container, "DRAINIT_GRACE"),
            format!("{}s", pod["terminationGracePeriodSeconds"])
        );
        seen += 1;
    }
    assert_eq!(seen, 8);
}

/// Every option that a file there sets is one of drainit's.
#[test]
fn options_by_their_names() {
    let help = Command::new(Subject::from_env().path()).arg("--help").output().unwrap();
    let help = text(&help.stdout);
    let mut files = Vec::new();
    walk(&root().join("deploy"), &mut files);
    let mut seen = 0;
    for file in files {
        let content = fs::read_to_string(&file).unwrap();
        for rest in content.split("DRAINIT_").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            let option = format!("--{} ", name.to_lowercase().replace('_', "-"));
            assert!(help.contains(&option), "{}: DRAINIT_{name}", file.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn the_systemd_unit() {
    let unit = read("deploy/outside/drainit.service");
    let line =
        |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{key}"));
    let patience = format!("{}s", line("TimeoutStopSec="));
    assert_eq!(line("Environment=DRAINIT_GRACE="), patience);
    // verify looks whether the programs are there.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("drainit.service");
    fs::write(
        &path,
        unit.replace("/usr/local/bin/drainit", "/bin/true").replace("/usr/bin/node", "/bin/true"),
    )
    .unwrap();
    let Ok(output) = Command::new("systemd-analyze").arg("verify").arg(&path).output() else {
        return cannot_run("no systemd-analyze");
    };
    let said = text(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn the_compose_file() {
    let Some(documents) = objects(&read("deploy/outside/compose.yaml"), &[]) else { return };
    let services = &documents[0]["object"]["services"];
    let web = &services["web"];
    assert_eq!(web["stop_grace_period"], web["environment"]["DRAINIT_GRACE"]);
    assert_eq!(web["entrypoint"][0], services["drainit"]["command"][1]);
    assert_eq!(web["healthcheck"]["test"][1], services["drainit"]["command"][1]);
}
