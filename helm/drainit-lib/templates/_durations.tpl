{{/* A duration in milliseconds. value, and name for the error message. */}}
{{- define "drainit-lib.milliseconds" -}}
{{- $text := include "drainit-lib.text" .value -}}
{{- if not (regexMatch "^(0|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$" $text) -}}
{{- fail (printf "%s is %s, which is no duration; takes a number with a unit such as 250ms, 10s, 2m, 1h (or 0)" .name $text) -}}
{{- end -}}
{{- $scales := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" $text -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $total = addf $total (mulf (float64 (trimSuffix $unit .)) (get $scales $unit)) -}}
{{- end -}}
{{- int64 (round $total 0) -}}
{{- end -}}

{{/* Milliseconds as a duration. */}}
{{- define "drainit-lib.duration" -}}
{{- $milliseconds := int64 . -}}
{{- if and (gt $milliseconds 0) (lt $milliseconds 1000) -}}
{{- printf "%dms" $milliseconds -}}
{{- else -}}
{{- printf "%vs" (divf $milliseconds 1000) -}}
{{- end -}}
{{- end -}}
