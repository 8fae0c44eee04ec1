{{/* How long drainit may take for so many tries of a worker; 0 where it waits for ever. settings, tries. */}}
{{- define "drainit-lib.startupSeconds" -}}
{{- $tries := int64 .tries -}}
{{- with .settings -}}
{{- $readiness := .values.readiness | default dict -}}
{{- $timeout := include "drainit-lib.or" (list $readiness.timeout (empty .listen | ternary "off" "30s")) -}}
{{- $milliseconds := 0 -}}
{{- if ne $timeout "off" -}}
{{- $milliseconds = include "drainit-lib.milliseconds" (dict "value" $timeout "name" (printf "%s.readiness.timeout" .at)) | int64 | mul $tries -}}
{{- if $readiness.waitFor -}}
{{- $wait := include "drainit-lib.or" (list $readiness.waitForTimeout "60s") -}}
{{- $milliseconds = add $milliseconds (include "drainit-lib.milliseconds" (dict "value" $wait "name" (printf "%s.readiness.waitForTimeout" .at)) | int64) -}}
{{- end -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}
{{- end -}}

{{/* failureThreshold of the startup probe: as said, or enough for a second try. */}}
{{- define "drainit-lib.startupThreshold" -}}
{{- $startup := (.values.probes | default dict).startup | default dict -}}
{{- $period := $startup.periodSeconds | default 1 | int64 -}}
{{- $seconds := include "drainit-lib.startupSeconds" (dict "settings" . "tries" 2) | int64 -}}
{{- $least := div (add $seconds (sub $period 1)) $period -}}
{{- $startup.failureThreshold | default (max 60 $least) | int -}}
{{- end -}}

{{/*
startupProbe, readinessProbe and livenessProbe. None has a terminationGracePeriodSeconds of its own, which would be another
patience than the one that drainit is told.
*/}}
{{- define "drainit-lib.probes" -}}
{{- $settings := . -}}
{{- $probes := .values.probes | default dict -}}
{{- $blocks := list -}}
{{- range list
      (dict "name" "startup" "path" "/startupz" "verb" "startup" "periodSeconds" 1 "timeoutSeconds" 1)
      (dict "name" "readiness" "path" "/readyz" "verb" "ready" "periodSeconds" 1 "timeoutSeconds" 1 "failureThreshold" 2)
      (dict "name" "liveness" "path" "/livez" "verb" "live" "periodSeconds" 10 "timeoutSeconds" 2 "failureThreshold" 3) -}}
{{- $said := get $probes .name | default dict -}}
{{- if ne (toString $said.enabled) "false" -}}
{{- $probe := dict -}}
{{- if eq ($probes.method | default "http") "exec" -}}
{{- $_ := set $probe "exec" (dict "command" (list $settings.binary "probe" .verb)) -}}
{{- else -}}
{{- $_ := set $probe "httpGet" (dict "path" .path "port" "admin") -}}
{{- end -}}
{{- range $field, $value := merge (omit $said "enabled") (pick . "periodSeconds" "timeoutSeconds" "failureThreshold") -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $probe $field (int $value) -}}
{{- end -}}
{{- end -}}
{{- if not $probe.failureThreshold -}}
{{- $_ := set $probe "failureThreshold" (include "drainit-lib.startupThreshold" $settings | int) -}}
{{- end -}}
{{- $blocks = append $blocks (toYaml (dict (printf "%sProbe" .name) $probe)) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $blocks -}}
{{- end -}}

{{/* lifecycle of the container, where there is a hook. */}}
{{- define "drainit-lib.lifecycle" -}}
{{- $preStop := .values.preStop | default dict -}}
{{- if $preStop.enabled -}}
lifecycle:
  preStop:
    {{- if eq ($preStop.method | default "exec") "http" }}
    httpGet:
      path: /prestop
      port: admin
    {{- else }}
    exec:
      command: [{{ .binary | quote }}, "prestop"]
    {{- end }}
{{- end -}}
{{- end -}}
