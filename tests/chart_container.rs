//! The pod that the chart renders, run: podman in the kubelet's place, its initContainer first.
#![expect(clippy::disallowed_methods, reason = "a test reads the clock, and looks again after a while")]
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test needs and does not get is its failure"
)]

#[path = "container/guest.rs"]
#[expect(dead_code, reason = "shared by tests of which each uses its own part")]
mod guest;
#[path = "common/not_run.rs"]
mod not_run;
#[path = "container/podman.rs"]
mod podman;
#[path = "chart/script.rs"]
mod script;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use guest::{Guest, eventually};
use not_run::cannot_run;
use podman::{Podman, podman};
use script::script;
use serde_json::{Value, json};

/// As the kubelet has it: the container's restrictions, an emptyDir that everybody may write to, the probes, the hook.
#[test]
fn a_restricted_pod_starts_is_ready_and_drains() {
    let Some(podman) = podman() else { return };
    let Some(pod) = Pod::render(json!({
        "image": {"repository": "localhost/any", "tag": "1"},
        "command": ["/worker", "bind"],
        "drainit": {
            "workers": 2,
            "preStop": {"enabled": true},
            "drain": {"lbWait": {"min": "0", "max": "1s"}, "timeout": "5s"},
        },
    })) else {
        return;
    };
    let volumes = Volumes::of(&pod, "http");
    volumes.initialize(podman, &pod);
    let container = &pod.0["containers"][0];
    let guest = volumes.start(podman, &pod);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["port"], "admin", "{probe}");
        guest.until_probe(get["path"].as_str().unwrap(), 200);
    }
    assert_eq!(guest.status()["ready_workers"], 2);
    guest.get("/");

    // The kubelet's order: the hook, and when that is over the signal.
    let hook = words(&container["lifecycle"]["preStop"]["exec"]["command"]);
    let ended = podman.run([&["exec", guest.name()][..], &hook].concat());
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(guest.probe("/readyz").unwrap(), 503);
    let grace = pod.0["terminationGracePeriodSeconds"].to_string();
    assert_eq!(guest.stop(&["--time", &grace]), 0);
    assert!(volumes.termination_log().starts_with("drained in "), "{:?}", volumes.termination_log());
}

#[test]
fn probes_by_exec_need_no_admin_port() {
    let Some(podman) = podman() else { return };
    let Some(pod) = Pod::render(json!({
        "image": {"repository": "localhost/any", "tag": "1"},
        "command": ["/worker", "bind"],
        "drainit": {"admin": {"enabled": false}, "probes": {"method": "exec"}, "drain": {"lbWait": {"min": "0", "max": "0"}}},
    })) else {
        return;
    };
    let volumes = Volumes::of(&pod, "exec");
    volumes.initialize(podman, &pod);
    let container = &pod.0["containers"][0];
    let guest = volumes.start(podman, &pod);
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let command = words(&container[probe]["exec"]["command"]);
        let asked = [&["exec", guest.name()][..], &command].concat();
        eventually(probe, || (podman.run(&asked).code == 0).then_some(()));
    }
    assert!(guest.probe("/readyz").is_err());
    assert_eq!(guest.stop(&[]), 0);
}

/// `spec` of the pod.
struct Pod(Value);

impl Pod {
    #[track_caller]
    fn render(values: Value) -> Option<Self> {
        let output = script(&["pod", &values.to_string()])?.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).map(Self).ok()
    }
}

/// What is mounted, in a directory of this test's.
struct Volumes {
    folder: PathBuf,
}

impl Volumes {
    fn of(pod: &Pod, name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pod-{name}-{}", std::process::id()));
        let volumes = Self { folder };
        for volume in pod.0["volumes"].as_array().unwrap() {
            assert!(volume["emptyDir"].is_object(), "{volume}");
            let path = volumes.folder.join(volume["name"].as_str().unwrap());
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let log = volumes.folder.join("termination-log");
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        volumes
    }

    /// Runs the initContainer, which copies the binary.
    fn initialize(&self, podman: &Podman, pod: &Pod) {
        let container = &pod.0["initContainers"][0];
        let mut arguments = vec!["run".to_owned(), "--rm".to_owned()];
        arguments.extend(self.arguments(pod, container));
        arguments.push(podman.image.clone());
        arguments.extend(words(&container["command"])[1..].iter().map(|word| (*word).to_owned()));
        podman.must(arguments);
        let installed = fs::metadata(self.folder.join("drainit/drainit")).unwrap();
        assert_eq!(installed.permissions().mode() & 0o777, 0o755);
    }

    /// Runs the server's container.
    fn start(&self, podman: &'static Podman, pod: &Pod) -> Guest {
        let container = &pod.0["containers"][0];
        let options = self.arguments(pod, container);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let arguments = words(&container["args"]);
        assert_eq!(arguments.first(), Some(&"--"));
        podman.start(&options, &[], &arguments[1..])
    }

    /// Options of `podman run` for a container of the pod, its restrictions included.
    fn arguments(&self, pod: &Pod, container: &Value) -> Vec<String> {
        let own = &container["securityContext"];
        assert_eq!(own["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(
            (&own["allowPrivilegeEscalation"], &own["readOnlyRootFilesystem"]),
            (&json!(false), &json!(true))
        );
        let user = &pod.0["securityContext"];
        let mut arguments = vec![
            format!("--user={}:{}", user["runAsUser"], user["runAsGroup"]),
            "--cap-drop=all".to_owned(),
            "--security-opt=no-new-privileges".to_owned(),
            "--read-only".to_owned(),
            // A pod has none of podman's own in /run and /tmp.
            "--read-only-tmpfs=false".to_owned(),
            format!("--entrypoint={}", container["command"][0].as_str().unwrap()),
            "--env=KUBERNETES_SERVICE_HOST=10.96.0.1".to_owned(),
            format!("--volume={}:/dev/termination-log", self.folder.join("termination-log").display()),
        ];
        for variable in container["env"].as_array().into_iter().flatten() {
            let text = |field: &str| variable[field].as_str().unwrap();
            arguments.push(format!("--env={}={}", text("name"), text("value")));
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            let text = |field: &str| mount[field].as_str().unwrap();
            let mode = if mount["readOnly"] == true { ":ro" } else { "" };
            let from = self.folder.join(text("name"));
            arguments.push(format!("--volume={}:{}{mode}", from.display(), text("mountPath")));
        }
        arguments
    }

    fn termination_log(&self) -> String {
        fs::read_to_string(self.folder.join("termination-log")).unwrap()
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}
