{{/* What the server's container has mounted, and where it comes from. root, drainit: the settings. */}}
{{- define "drainit.volumeMounts" -}}
{{- $mounts := include "drainit-lib.volumeMounts" .drainit | fromYamlArray -}}
{{- range $index, $each := .root.Values.writablePaths -}}
{{- $mounts = append $mounts (dict "name" (printf "writable-%d" $index) "mountPath" $each.path) -}}
{{- end -}}
{{- if include "drainit.configMapName" .root -}}
{{- $mounts = append $mounts (dict "name" "config" "mountPath" .root.Values.config.mountPath "readOnly" true) -}}
{{- end -}}
{{- with concat $mounts .root.Values.volumeMounts -}}
{{- toYaml . -}}
{{- end -}}
{{- end }}

{{- define "drainit.volumes" -}}
{{- $volumes := include "drainit-lib.volumes" .drainit | fromYamlArray -}}
{{- range $index, $each := .root.Values.writablePaths -}}
{{- $volumes = append $volumes (dict "name" (printf "writable-%d" $index) "emptyDir" (pick $each "sizeLimit" "medium")) -}}
{{- end -}}
{{- with include "drainit.configMapName" .root -}}
{{- $volumes = append $volumes (dict "name" "config" "configMap" (dict "name" .)) -}}
{{- end -}}
{{- with concat $volumes .root.Values.volumes -}}
{{- toYaml . -}}
{{- end -}}
{{- end }}

{{/* Of each version by itself: while a rollout runs, the old pods would count. */}}
{{- define "drainit.topologySpread" -}}
{{- $root := . -}}
{{- with .Values.topologySpread -}}
{{- if .constraints -}}
{{- toYaml .constraints -}}
{{- else if .enabled -}}
{{- $constraints := list -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict
      "maxSkew" 1
      "topologyKey" .
      "whenUnsatisfiable" $root.Values.topologySpread.whenUnsatisfiable
      "labelSelector" (dict "matchLabels" (include "drainit.selectorLabels" $root | fromYaml))
      "matchLabelKeys" (list "pod-template-hash")) -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end -}}
{{- end -}}
{{- end }}
