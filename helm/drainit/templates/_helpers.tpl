{{/*
The name of the chart, or what takes its place.
*/}}
{{- define "drainit.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The name of everything in this release. Cut at 63 characters, which some names in Kubernetes are limited to; no longer than
needed where the release is named for the chart.
*/}}
{{- define "drainit.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The same with something after it, within the 63.
*/}}
{{- define "drainit.nameWith" -}}
{{- $suffix := last . -}}
{{- printf "%s-%s" (include "drainit.fullname" (first .) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-") $suffix }}
{{- end }}

{{/*
Name and version of the chart, for the label.
*/}}
{{- define "drainit.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
Labels of everything.
*/}}
{{- define "drainit.labels" -}}
helm.sh/chart: {{ include "drainit.chart" . }}
{{ include "drainit.selectorLabels" . }}
{{- if .Chart.AppVersion }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
Labels by which the pods are found. They never change: a Deployment does not permit it.
*/}}
{{- define "drainit.selectorLabels" -}}
app.kubernetes.io/name: {{ include "drainit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/*
Labels of the pod of `helm test`, which no selector of the others may find: the Service would send it requests.
*/}}
{{- define "drainit.testLabels" -}}
app.kubernetes.io/name: {{ include "drainit.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "drainit.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "drainit.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/*
The server's image, and what it executes.
*/}}
{{- define "drainit.image" -}}
{{- if not .Values.image.repository -}}
docker.io/library/node:22-slim
{{- else if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}
{{- end }}

{{- define "drainit.command" -}}
{{- if .Values.image.repository -}}
{{- toJson .Values.command -}}
{{- else -}}
{{- $server := "const server = require('http').createServer((request, response) => response.end('hello\\n')).listen(process.env.PORT)" -}}
{{- toJson (list "node" "-e" (printf "%s; process.on('SIGTERM', () => server.close())" $server)) -}}
{{- end -}}
{{- end }}

{{/*
What drainit-lib takes: drainit's values, and the paths of which this chart knows that they are to be watched.
*/}}
{{- define "drainit.settings" -}}
{{- $values := deepCopy .Values.drainit -}}
{{- if and (include "drainit.configMapName" .) (eq .Values.config.onChange "watch") -}}
{{- $_ := set $values.roll "watch" (append ($values.roll.watch | default list) .Values.config.mountPath | uniq) -}}
{{- end -}}
{{- include "drainit-lib.settings" (dict "values" $values "containerPort" .Values.containerPort "securityContext" .Values.securityContext "root" $) -}}
{{- end }}

{{- define "drainit.configMapName" -}}
{{- if .Values.config.existingConfigMap -}}
{{ .Values.config.existingConfigMap }}
{{- else if .Values.config.files -}}
{{ include "drainit.fullname" . }}
{{- end -}}
{{- end }}

{{/*
The least number of pods there are.
*/}}
{{- define "drainit.replicas" -}}
{{- .Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas .Values.replicaCount | int -}}
{{- end }}

{{/*
The series of this release, as labels in PromQL.
*/}}
{{- define "drainit.series" -}}
{{- with .Values.metrics.prometheusRule.selector -}}
{{ . }}
{{- else -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "drainit.fullname" . }}-[a-z0-9]+-[a-z0-9]+"
{{- end -}}
{{- end }}
