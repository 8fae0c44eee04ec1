{{/*
The one calculation: what the kubelet waits, what drainit may use of it, and for what. drain: the values; at: where they
are. The rules are drainit's own (--lb-wait is cut where it does not fit); here it is refused instead, so that what the
manifest says is what happens.
*/}}
{{- define "drainit-lib.budget" -}}
{{- $at := .at -}}
{{- $drain := .drain -}}
{{- $wait := $drain.lbWait | default dict -}}
{{- $read := dict -}}
{{- range $name, $value := dict
      "margin" (include "drainit-lib.or" (list $drain.margin "1s"))
      "lbWait.min" (include "drainit-lib.or" (list $wait.min "3s"))
      "lbWait.max" (include "drainit-lib.or" (list $wait.max "15s")) -}}
{{- $_ := set $read $name (include "drainit-lib.milliseconds" (dict "value" $value "name" (printf "%s.%s" $at $name)) | int64) -}}
{{- end -}}
{{- $margin := get $read "margin" -}}
{{- $min := get $read "lbWait.min" -}}
{{- $max := get $read "lbWait.max" -}}
{{- if gt $min $max -}}
{{- fail (printf "%s.lbWait.min is %s, more than lbWait.max; takes at most %s" $at $wait.min (include "drainit-lib.duration" $max)) -}}
{{- end -}}

{{- $capped := not (has (toString $drain.timeout) (list "" "<nil>")) -}}
{{- $timeout := 0 -}}
{{- if $capped -}}
{{- $timeout = include "drainit-lib.milliseconds" (dict "value" $drain.timeout "name" (printf "%s.timeout" $at)) | int64 -}}
{{- end -}}

{{/* Of the budget a quarter, at least 500 ms, is left for the workers. */}}
{{- $least := 1 -}}
{{- if gt $max 0 -}}
{{- $least = max (add $max 500) (div (add (mul $max 4) 2) 3) -}}
{{- end -}}
{{- $least = max $least (add $max $timeout) -}}
{{- $leastGrace := div (add $least $margin 999) 1000 -}}

{{- $given := $drain.terminationGracePeriodSeconds -}}
{{- $seconds := $leastGrace -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $seconds = int64 $given -}}
{{- else if not $capped -}}
{{- $seconds = max 30 $leastGrace -}}
{{- end -}}
{{- $grace := mul $seconds 1000 -}}
{{- if ge $margin $grace -}}
{{- fail (printf "%s.margin is %s, and nothing would be left of terminationGracePeriodSeconds %d; takes less than %ds, or terminationGracePeriodSeconds from %d on" $at (include "drainit-lib.duration" $margin) $seconds $seconds $leastGrace) -}}
{{- end -}}
{{- $budget := sub $grace $margin -}}
{{- $limit := max 0 (sub $budget (max (div $budget 4) 500)) -}}
{{- if gt $max $limit -}}
{{- fail (printf "%s.lbWait.max is %s: of terminationGracePeriodSeconds %d less margin %s a quarter, at least 500ms, is left for the workers; takes at most %s, or terminationGracePeriodSeconds from %d on" $at (include "drainit-lib.duration" $max) $seconds (include "drainit-lib.duration" $margin) (include "drainit-lib.duration" $limit) $leastGrace) -}}
{{- end -}}
{{- $left := sub $budget $max -}}
{{- if gt $timeout $left -}}
{{- fail (printf "%s.timeout is %s: with lbWait.max %s and margin %s that is %s of terminationGracePeriodSeconds %d; takes at most %s, or terminationGracePeriodSeconds from %d on" $at (include "drainit-lib.duration" $timeout) (include "drainit-lib.duration" $max) (include "drainit-lib.duration" $margin) (include "drainit-lib.duration" (add $timeout $max $margin)) $seconds (include "drainit-lib.duration" $left) $leastGrace) -}}
{{- end -}}
graceSeconds: {{ $seconds }}
margin: {{ include "drainit-lib.duration" $margin }}
lbWaitMin: {{ include "drainit-lib.duration" $min }}
lbWaitMax: {{ include "drainit-lib.duration" $max }}
{{- if $capped }}
timeout: {{ include "drainit-lib.duration" $timeout }}
{{- end }}
{{/* For the workers where the wait lasts for its maximum. */}}
workers: {{ include "drainit-lib.duration" ($capped | ternary $timeout $left) }}
{{- end -}}

{{/* terminationGracePeriodSeconds of the pod. */}}
{{- define "drainit-lib.grace" -}}
{{- int .budget.graceSeconds -}}
{{- end -}}
