{{/*
What all the others take: the values of drainit, checked, and what follows from them, as YAML.

  values           the values described in values.yaml of this chart
  at               where they are in the values of your chart, for error messages; drainit unless said
  containerPort    the port of the server
  securityContext  of the container, for the initContainer too
  root             $

  {{- $drainit := include "drainit-lib.settings" (dict "values" .Values.drainit "containerPort" 8080 "root" $) | fromYaml }}
*/}}
{{- define "drainit-lib.settings" -}}
{{- $values := .values | default dict -}}
{{- $at := .at | default "drainit" -}}
{{- include "drainit-lib.checkNames" (dict "values" $values "at" $at) -}}
{{- $injection := $values.injection | default dict -}}
{{- $method := $injection.method | default "initContainer" -}}
{{- if not (has $method (list "initContainer" "imageVolume" "baked")) -}}
{{- fail (printf "%s.injection.method is %s; takes initContainer, imageVolume or baked" $at $method) -}}
{{- end -}}
{{- $folder := $injection.mountPath | default "/opt/drainit" -}}
{{- $binary := printf "%s/drainit" (trimSuffix "/" $folder) -}}
{{- if eq $method "baked" -}}
{{- $binary = $injection.path | default "/drainit" -}}
{{- end -}}
{{- $admin := $values.admin | default dict -}}
{{- $listen := list -}}
{{- range (hasKey $values "listen" | ternary $values.listen (list "auto")) -}}
{{- $listen = append $listen (eq (toString .) "auto" | ternary (toString $.containerPort) (include "drainit-lib.text" .)) -}}
{{- end -}}
{{- $settings := dict
      "values" $values
      "at" $at
      "method" $method
      "folder" $folder
      "binary" $binary
      "listen" $listen
      "containerPort" .containerPort
      "adminPort" (eq (toString $admin.enabled) "false" | ternary 0 (int ($admin.port | default 9180)))
      "securityContext" (.securityContext | default dict)
      "budget" (include "drainit-lib.budget" (dict "drain" ($values.drain | default dict) "at" (printf "%s.drain" $at)) | fromYaml)
-}}
{{- include "drainit-lib.checkTogether" $settings -}}
{{- include "drainit-lib.checkCluster" (dict "settings" $settings "root" .root) -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The first of two that is said. `default` will not do: it takes 0 for nothing. */}}
{{- define "drainit-lib.or" -}}
{{- $text := kindIs "invalid" (first .) | ternary "" (include "drainit-lib.text" (first .)) -}}
{{- eq $text "" | ternary (last .) $text -}}
{{- end -}}

{{/* A value as drainit writes it: YAML takes on and off for true and false, and numbers for fractions. */}}
{{- define "drainit-lib.text" -}}
{{- if kindIs "bool" . -}}
{{- ternary "on" "off" . -}}
{{- else if kindIs "float64" . -}}
{{- eq (float64 (int64 .)) . | ternary (toString (int64 .)) (toString .) -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}
