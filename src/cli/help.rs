//! What `--help` says after the options.

/// Exit codes: part of the interface.
pub(super) const AFTER: &str = "\
Each option also as DRAINIT_<OPTION> in the environment (DRAINIT_LB_WAIT=3s..15s); a repeatable one is
comma-separated; the flag wins. Durations: 250ms, 10s, 2m, 1h30m; MIN..MAX, or one for both.

Exit codes: the worker's own, or 128+signal, for one worker under --restart never; 0 drained in time;
64 usage; 69 an address is taken or refused; 70 a bug of drainit; 71 the system refused to start a process;
75 workers keep crashing; 124 a worker had to be killed in the drain; 126 COMMAND cannot be executed;
127 COMMAND is not found.";
