{{/*
startupProbe, readinessProbe and livenessProbe. None has a terminationGracePeriodSeconds of its own, which would be another
patience than the one that drainit is told.
*/}}
{{- define "drainit-lib.probes" -}}
{{- $settings := . -}}
{{- $probes := .values.probes | default dict -}}
{{- $blocks := list -}}
{{- range list
      (dict "name" "startup" "path" "/startupz" "verb" "startup" "periodSeconds" 1 "timeoutSeconds" 1 "failureThreshold" 60)
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
{{- $_ := set $probe $field (int $value) -}}
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
