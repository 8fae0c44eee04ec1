//! The Helm charts. Rendered and linted by Helm's own engine, held against Kubernetes' schemas (tests/chart, in Python), and
//! against drainit itself: its options, its metrics, its arithmetic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

#[path = "chart/alerts.rs"]
mod alerts;
mod common;
#[path = "chart/script.rs"]
mod script;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::network::leave_network;
use common::pool::{pool, text};
use common::{Subject, cannot_run};
use script::script;
use serde_json::Value;

/// They have values by other names, which are one calculation or follow from others.
const CALCULATED: [&str; 7] = [
    "DRAINIT_GRACE",
    "DRAINIT_MARGIN",
    "DRAINIT_LB_WAIT",
    "DRAINIT_DRAIN_TIMEOUT",
    "DRAINIT_LISTEN",
    "DRAINIT_ADMIN",
    "DRAINIT_PRESTOP_HTTP",
];

/// Mean nothing in a pod, and go by extraArgs or extraEnv.
const ELSEWHERE: [&str; 1] = ["DRAINIT_PARENT_DEATH"];

#[test]
fn helm_lint_strict_finds_nothing() {
    check("lint", 30);
}

/// No `helm dependency update`, no network.
#[test]
fn a_clone_installs() {
    check("install", 2);
}

#[test]
fn right_values_render_what_every_kubernetes_takes() {
    check("right", 120);
}

#[test]
fn wrong_values_are_refused_in_a_sentence_that_says_what_would_fit() {
    check("wrong", 50);
}

#[test]
fn the_grace_period_is_the_least_that_fits_and_advice_helps() {
    check("budget", 500);
}

#[test]
fn renderings_are_those_that_were_read() {
    check("golden", 8);
}

#[test]
fn the_schema_describes_every_value() {
    check("schema", 200);
}

#[test]
fn alerts_and_panels_are_promql() {
    check("promql", 30);
}

#[test]
fn the_library_in_the_chart_is_the_library() {
    let (library, copy) = (path("helm/drainit-lib"), path("helm/drainit/charts/drainit-lib"));
    let files = files_below(&library);
    assert!(files.iter().any(|file| file.ends_with("_budget.tpl")), "{files:?}");
    let hint = "rm -r helm/drainit/charts/drainit-lib; cp -r helm/drainit-lib helm/drainit/charts/";
    assert_eq!(files, files_below(&copy), "{hint}");
    for file in files {
        assert_eq!(
            fs::read_to_string(library.join(&file)).unwrap(),
            fs::read_to_string(copy.join(&file)).unwrap(),
            "{}: {hint}",
            file.display()
        );
    }
}

/// The block of values is there twice, so that it can be read in both charts.
#[test]
fn the_values_of_the_library_are_those_of_the_chart() {
    let library = fs::read_to_string(path("helm/drainit-lib/values.yaml")).unwrap();
    let indented: String = library
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    let chart = fs::read_to_string(path("helm/drainit/values.yaml")).unwrap();
    assert!(chart.contains(&format!("\ndrainit:\n{indented}")), "helm/drainit/values.yaml has another block");
}

#[test]
fn every_option_has_a_value() {
    let help = Command::new(Subject::from_env().path()).arg("--help").output().unwrap();
    let options = variables(&text(&help.stdout));
    let table = fs::read_to_string(path("helm/drainit-lib/templates/_options.tpl")).unwrap();
    let mut known = variables(&table);
    known.extend(CALCULATED.map(str::to_owned));
    let without: Vec<_> =
        options.difference(&known).filter(|name| !ELSEWHERE.contains(&name.as_str())).collect();
    assert!(without.is_empty(), "options that helm/drainit-lib has no value for: {without:?}");
    let unknown: Vec<_> = known.difference(&options).collect();
    assert!(unknown.is_empty(), "values of helm/drainit-lib for options that there are not: {unknown:?}");
}

/// drainit says so at its start where an option is wrong, or two do not go together, or it has to cut one.
#[test]
fn drainit_has_nothing_to_say_about_any_environment() {
    let Some(mut script) = script(&["environments"]) else { return };
    let output = script.output().unwrap();
    leave_network();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let cases: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(cases.len() >= 30, "{}", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let env = case["env"].as_object().unwrap().iter();
        let mut drainit = Command::new("timeout");
        drainit.arg("20").arg(Subject::from_env().path()).args(["--", "true"]).env_clear();
        drainit.env("PATH", "/usr/bin:/bin").env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        drainit.envs(env.map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
        // One look at each of them, whatever becomes of the workers.
        drainit
            .env("DRAINIT_RESTART", "never")
            .env("DRAINIT_LOG_LEVEL", "warn")
            .env("DRAINIT_LOG_FORMAT", "text");
        let output = drainit.output().unwrap();
        let said = text(&output.stderr);
        let unexpected: Vec<&str> = said.lines().filter(|line| !is_to_be_expected(line)).collect();
        assert!(unexpected.is_empty(), "{name}: {unexpected:?}");
        assert_ne!(output.status.code(), Some(64), "{name}: {said}");
    }
}

/// Every name, label and value of a label in alerts and panels is one that a running drainit has.
#[test]
fn every_metric_exists() {
    let mut pool = pool().options(["--workers", "2", "--grace", "90s", "--lb-wait", "60s"]).server().start();
    pool.wait_ready(2);
    let mut metrics = pool.get("/metrics").body;
    pool.init().signal(libc::SIGTERM);
    pool.wait_for_phase("lame-duck");
    // Some are there in a drain alone.
    metrics.push_str(&pool.get("/metrics").body);
    pool.init().signal(libc::SIGTERM);
    assert_eq!(pool.wait(), common::Exit::Code(0));

    let exposed = alerts::exposed(&metrics);
    let mut seen = 0;
    for file in ["helm/drainit/alerts/drainit.yaml", "helm/drainit/dashboards/drainit.json"] {
        let text = fs::read_to_string(path(file)).unwrap().replace("\\\"", "\"");
        for series in alerts::selected(&text) {
            seen += 1;
            if let Some(fault) = series.fault(&exposed) {
                panic!("{file}: {fault}");
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

/// Whether a line on stderr is about what this environment cannot have here: sidecars, paths of the case's pod.
fn is_to_be_expected(line: &str) -> bool {
    line.contains("worker ended unasked") || line.contains("not told of the end") || line.contains("--watch")
}

fn variables(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
    words.filter(|word| word.starts_with("DRAINIT_") && word.len() > 8).map(str::to_owned).collect()
}

/// Runs a check of tests/chart/check.py, which looks at no fewer than so many things.
fn check(command: &str, least: u32) {
    let Some(mut script) = script(&[command]) else { return };
    let Output { status, stdout, stderr } = script.output().unwrap();
    let said = text(&stdout);
    assert!(status.success(), "{said}{}", text(&stderr));
    let looked_at = said.lines().last().and_then(|line| line.split(' ').nth(1)?.parse::<u32>().ok());
    assert!(looked_at.is_some_and(|number| number >= least), "{said}");
}

fn path(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(below)
}

fn files_below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(each) = folders.pop() {
        for entry in fs::read_dir(&each).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                files.insert(entry.strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    files
}
