{{/* The image of drainit. */}}
{{- define "drainit-lib.image" -}}
{{- $image := .values.image | default dict -}}
{{- $repository := $image.repository | default "drainit" -}}
{{- with $image.digest -}}
{{- printf "%s@%s" $repository . -}}
{{- else -}}
{{- printf "%s:%s" $repository (include "drainit-lib.or" (list $image.tag "dev")) -}}
{{- end -}}
{{- end -}}

{{/* An entry of initContainers, first among them. It needs nothing but the binary that it copies. */}}
{{- define "drainit-lib.initContainer" -}}
{{- if eq .method "initContainer" -}}
- name: drainit-install
  image: {{ include "drainit-lib.image" . | quote }}
  imagePullPolicy: {{ (.values.image | default dict).pullPolicy | default "IfNotPresent" }}
  command: ["/drainit", "install", {{ .binary | quote }}]
  {{- with .securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with (.values.injection | default dict).resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: drainit
      mountPath: {{ .folder }}
{{- end -}}
{{- end -}}

{{/* An entry of volumes. */}}
{{- define "drainit-lib.volumes" -}}
{{- if eq .method "initContainer" -}}
- name: drainit
  emptyDir:
    sizeLimit: 16Mi
{{- else if eq .method "imageVolume" -}}
- name: drainit
  image:
    reference: {{ include "drainit-lib.image" . | quote }}
    pullPolicy: {{ (.values.image | default dict).pullPolicy | default "IfNotPresent" }}
{{- end -}}
{{- end -}}
