{{/*
command and args of the container: drainit, its own arguments, and the server's command line. drainit: the settings; command: a
list, which may be empty with injection.method baked, where the image's ENTRYPOINT is drainit.
*/}}
{{- define "drainit-lib.command" -}}
{{- $settings := .drainit -}}
{{- $extra := $settings.values.extraArgs | default list -}}
{{- if .command -}}
command: {{ list $settings.binary | toJson }}
args:
  {{- concat $extra (list "--") .command | toYaml | nindent 2 }}
{{- else if $extra -}}
{{- fail (printf "%s.extraArgs come before a command, and there is none; takes command, or %s.extraEnv" $settings.at $settings.at) -}}
{{- else if ne $settings.method "baked" -}}
{{- fail (printf "command is empty: a chart cannot see the ENTRYPOINT of an image; takes the server's command line, such as [node, server.js], or %s.injection.method baked for an image whose ENTRYPOINT is drainit" $settings.at) -}}
{{- end -}}
{{- end -}}

{{/* The admin port among the ports of the container. */}}
{{- define "drainit-lib.ports" -}}
{{- if gt (int .adminPort) 0 -}}
- name: admin
  containerPort: {{ int .adminPort }}
  protocol: TCP
{{- end -}}
{{- end -}}

{{- define "drainit-lib.volumeMounts" -}}
{{- if ne .method "baked" -}}
- name: drainit
  mountPath: {{ .folder }}
  readOnly: true
{{- end -}}
{{- end -}}
