{{/*
Every value that is an option of drainit, in the order in which the variables appear: where it is, the variable, and how it is
written.

  text      as it is
  duration  checked
  timeout   the same, or off
  flag      true, or nothing
  list      with commas
  pairs     KEY=VALUE with commas
*/}}
{{- define "drainit-lib.options" -}}
- {value: workers, env: DRAINIT_WORKERS, as: text}
- {value: sockets, env: DRAINIT_SOCKETS, as: text}
- {value: adoptBind, env: DRAINIT_ADOPT_BIND, as: text}
- {value: nodeIpc, env: DRAINIT_NODE_IPC, as: text}
- {value: restart, env: DRAINIT_RESTART, as: text}
- {value: backoff, env: DRAINIT_BACKOFF, as: text}
- {value: minUptime, env: DRAINIT_MIN_UPTIME, as: duration}
- {value: maxCrashes, env: DRAINIT_MAX_CRASHES, as: text}
- {value: maxRss, env: DRAINIT_MAX_RSS, as: text}
- {value: maxLifetime, env: DRAINIT_MAX_LIFETIME, as: timeout}
- {value: user, env: DRAINIT_USER, as: text}
- {value: readiness.when, env: DRAINIT_READY_WHEN, as: text}
- {value: readiness.timeout, env: DRAINIT_READY_TIMEOUT, as: timeout}
- {value: readiness.minReady, env: DRAINIT_MIN_READY, as: text}
- {value: readiness.minReadyTime, env: DRAINIT_MIN_READY_TIME, as: duration}
- {value: readiness.watchdog, env: DRAINIT_WATCHDOG, as: timeout}
- {value: readiness.waitFor, env: DRAINIT_WAIT_FOR, as: list}
- {value: readiness.waitForTimeout, env: DRAINIT_WAIT_FOR_TIMEOUT, as: duration}
- {value: health.check, env: DRAINIT_CHECK, as: text}
- {value: health.every, env: DRAINIT_CHECK_EVERY, as: duration}
- {value: health.timeout, env: DRAINIT_CHECK_TIMEOUT, as: duration}
- {value: health.failures, env: DRAINIT_CHECK_FAILURES, as: text}
- {value: drain.lbQuiet, env: DRAINIT_LB_QUIET, as: duration}
- {value: drain.lbChecks, env: DRAINIT_LB_CHECKS, as: text}
- {value: drain.readinessOnDrain, env: DRAINIT_READINESS_ON_DRAIN, as: text}
- {value: drain.stopSignal, env: DRAINIT_STOP_SIGNAL, as: text}
- {value: drain.stopMessage, env: DRAINIT_STOP_MESSAGE, as: text}
- {value: drain.stopMessageWait, env: DRAINIT_STOP_MESSAGE_WAIT, as: duration}
- {value: drain.lateResponse, env: DRAINIT_LATE_RESPONSE, as: text}
- {value: drain.lateLinger, env: DRAINIT_LATE_LINGER, as: duration}
- {value: drain.lateBody, env: DRAINIT_LATE_BODY, as: text}
- {value: drain.lateRetryAfter, env: DRAINIT_LATE_RETRY_AFTER, as: timeout}
- {value: drain.lateTimeout, env: DRAINIT_LATE_TIMEOUT, as: duration}
- {value: drain.endIdleAfter, env: DRAINIT_END_IDLE_AFTER, as: timeout}
- {value: drain.onExitPost, env: DRAINIT_ON_EXIT_POST, as: list}
- {value: drain.orphanGrace, env: DRAINIT_ORPHAN_GRACE, as: duration}
- {value: roll.maxSurge, env: DRAINIT_MAX_SURGE, as: text}
- {value: roll.maxUnavailable, env: DRAINIT_MAX_UNAVAILABLE, as: text}
- {value: roll.canary, env: DRAINIT_CANARY, as: text}
- {value: roll.canaryHold, env: DRAINIT_CANARY_HOLD, as: duration}
- {value: roll.pause, env: DRAINIT_ROLL_PAUSE, as: duration}
- {value: roll.waitsForDrain, env: DRAINIT_ROLL_WAITS_FOR_DRAIN, as: flag}
- {value: roll.breakerFailures, env: DRAINIT_BREAKER_FAILURES, as: text}
- {value: roll.breakerWindow, env: DRAINIT_BREAKER_WINDOW, as: duration}
- {value: roll.breakerReset, env: DRAINIT_BREAKER_RESET, as: duration}
- {value: roll.watch, env: DRAINIT_WATCH, as: list}
- {value: signals, env: DRAINIT_SIGNAL, as: pairs}
- {value: signalScope, env: DRAINIT_SIGNAL_SCOPE, as: text}
- {value: remapExit, env: DRAINIT_REMAP_EXIT, as: pairs}
- {value: control, env: DRAINIT_CONTROL, as: text}
- {value: log.format, env: DRAINIT_LOG_FORMAT, as: text}
- {value: log.level, env: DRAINIT_LOG_LEVEL, as: text}
{{- end -}}

{{/* The options as variables of the container. */}}
{{- define "drainit-lib.env" -}}
{{- $settings := . -}}
{{- $values := .values -}}
{{- $budget := .budget -}}
{{- $variables := list
      (dict "name" "DRAINIT_GRACE" "value" (printf "%ds" (int $budget.graceSeconds)))
      (dict "name" "DRAINIT_MARGIN" "value" $budget.margin)
      (dict "name" "DRAINIT_LB_WAIT" "value" (printf "%s..%s" $budget.lbWaitMin $budget.lbWaitMax)) -}}
{{- with $budget.timeout -}}
{{- $variables = append $variables (dict "name" "DRAINIT_DRAIN_TIMEOUT" "value" .) -}}
{{- end -}}
{{- if eq (int .adminPort) 0 -}}
{{- $variables = append $variables (dict "name" "DRAINIT_ADMIN" "value" "off") -}}
{{- else if ne (int .adminPort) 9180 -}}
{{- $variables = append $variables (dict "name" "DRAINIT_ADMIN" "value" (toString (int .adminPort))) -}}
{{- end -}}
{{/* An empty one counts as none, whatever the image says. */}}
{{- $variables = append $variables (dict "name" "DRAINIT_LISTEN" "value" (join "," .listen)) -}}
{{- range include "drainit-lib.options" . | fromYamlArray -}}
{{- $text := include "drainit-lib.option" (dict "option" . "values" $values "at" $settings.at) -}}
{{- if $text -}}
{{- $variables = append $variables (dict "name" .env "value" $text) -}}
{{- end -}}
{{- end -}}
{{- $preStop := $values.preStop | default dict -}}
{{- if and $preStop.enabled (eq ($preStop.method | default "exec") "http") -}}
{{- $variables = append $variables (dict "name" "DRAINIT_PRESTOP_HTTP" "value" "true") -}}
{{- end -}}
{{- range $values.extraEnv -}}
{{- $variables = append $variables . -}}
{{- end -}}
{{- toYaml $variables -}}
{{- end -}}

{{/* One of them as drainit takes it, or nothing. */}}
{{- define "drainit-lib.option" -}}
{{- $value := include "drainit-lib.at" (dict "values" .values "path" .option.value) | fromYaml -}}
{{- $name := printf "%s.%s" .at .option.value -}}
{{- $value = $value.found -}}
{{- if not (has (toString $value) (list "" "<nil>" "[]" "map[]")) -}}
{{- $text := include "drainit-lib.text" $value -}}
{{- if eq .option.as "flag" -}}
{{- if eq $text "on" }}true{{ end -}}
{{- else if eq .option.as "list" -}}
{{- range $value -}}
{{- if contains "," . -}}
{{- fail (printf "%s holds %s, and a comma ends it; takes it in extraArgs" $name .) -}}
{{- end -}}
{{- end -}}
{{- join "," $value -}}
{{- else if eq .option.as "pairs" -}}
{{- $pairs := list -}}
{{- range $key, $each := $value -}}
{{- $pairs = append $pairs (printf "%s=%s" $key (include "drainit-lib.text" $each)) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- else -}}
{{- if and (has .option.as (list "duration" "timeout")) (not (and (eq .option.as "timeout") (eq $text "off"))) -}}
{{- $_ := include "drainit-lib.milliseconds" (dict "value" $value "name" $name) -}}
{{- end -}}
{{- $text -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is at a path such as drain.lbQuiet, as `found: …`; nothing where something on the way is missing. */}}
{{- define "drainit-lib.at" -}}
{{- $here := .values -}}
{{- range splitList "." .path -}}
{{- if kindIs "map" $here -}}
{{- $here = get $here . -}}
{{- else -}}
{{- $here = "" -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "found" $here) -}}
{{- end -}}
