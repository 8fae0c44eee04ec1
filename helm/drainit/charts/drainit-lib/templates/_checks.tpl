{{/* Names that are none: a slip of the pen is not passed over. values, and where they are. */}}
{{- define "drainit-lib.checkNames" -}}
{{- $known := list
      "image.repository" "image.tag" "image.digest" "image.pullPolicy"
      "injection.method" "injection.mountPath" "injection.path" "injection.resources"
      "listen" "drain.terminationGracePeriodSeconds" "drain.margin" "drain.lbWait.min" "drain.lbWait.max" "drain.timeout"
      "admin.enabled" "admin.port" "probes.method" "preStop.enabled" "preStop.method" "extraArgs" "extraEnv" "global" -}}
{{- range $probe, $fields := dict "startup" list "readiness" (list "successThreshold") "liveness" list -}}
{{- range concat $fields (list "enabled" "initialDelaySeconds" "periodSeconds" "timeoutSeconds" "failureThreshold") -}}
{{- $known = append $known (printf "probes.%s.%s" $probe .) -}}
{{- end -}}
{{- end -}}
{{- range include "drainit-lib.options" . | fromYamlArray -}}
{{- $known = append $known .value -}}
{{- end -}}
{{- include "drainit-lib.checkNamesBelow" (dict "here" .values "path" "" "at" .at "known" $known) -}}
{{- end -}}

{{- define "drainit-lib.checkNamesBelow" -}}
{{- range $name, $value := .here -}}
{{- $path := ne $.path "" | ternary (printf "%s.%s" $.path $name) $name -}}
{{- $prefix := printf "%s." $path -}}
{{- if not (has $path $.known) -}}
{{- $below := list -}}
{{- range $.known -}}
{{- if hasPrefix $prefix . -}}
{{- $below = append $below (trimPrefix $prefix .) -}}
{{- end -}}
{{- end -}}
{{- if not $below -}}
{{- $siblings := list -}}
{{- range $.known -}}
{{- if or (not $.path) (hasPrefix (printf "%s." $.path) .) -}}
{{- $siblings = append $siblings (first (splitList "." (trimPrefix (printf "%s." $.path) .))) -}}
{{- end -}}
{{- end -}}
{{- fail (printf "%s.%s is no value of drainit; there are %s" $.at $path (join ", " (sortAlpha (uniq $siblings)))) -}}
{{- else if kindIs "map" $value -}}
{{- include "drainit-lib.checkNamesBelow" (dict "here" $value "path" $path "at" $.at "known" $.known) -}}
{{- else -}}
{{- fail (printf "%s.%s is %v; takes %s below it" $.at $path $value (join ", " (sortAlpha $below))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What cannot go together, as drainit itself would say at its start, and what Kubernetes adds to that. Takes the settings. */}}
{{- define "drainit-lib.checkTogether" -}}
{{- $at := .at -}}
{{- $values := .values -}}
{{- $settings := . -}}
{{- $text := dict -}}
{{- range include "drainit-lib.options" . | fromYamlArray -}}
{{- $_ := set $text .value (include "drainit-lib.option" (dict "option" . "values" $values "at" $at)) -}}
{{- end -}}

{{/* Words. */}}
{{- range $name, $words := dict
      "sockets" "shared per-worker sticky"
      "adoptBind" "auto on off"
      "nodeIpc" "auto on off"
      "restart" "always on-failure never"
      "drain.readinessOnDrain" "fail keep"
      "drain.lateResponse" "503 reset off"
      "signalScope" "leader group"
      "log.format" "text json"
      "log.level" "error warn info debug trace off" -}}
{{- $said := get $text $name -}}
{{- if and $said (not (has $said (splitList " " $words))) -}}
{{- fail (printf "%s.%s is %s; takes %s" $at $name $said (replace " " ", " $words)) -}}
{{- end -}}
{{- end -}}

{{/* Workers. */}}
{{- $workers := get $text "workers" | default "1" -}}
{{- $number := 0 -}}
{{- if regexMatch "^[0-9]+$" $workers -}}
{{- $number = int $workers -}}
{{- end -}}
{{- if and (ne $workers "auto") (or (lt $number 1) (gt $number 1024)) -}}
{{- fail (printf "%s.workers is %s; takes 1 to 1024, or auto" $at $workers) -}}
{{- end -}}
{{- $minReady := get $text "readiness.minReady" -}}
{{- if and (gt $number 0) (regexMatch "^[0-9]+$" $minReady) (gt (int $minReady) $number) -}}
{{- fail (printf "%s.readiness.minReady is %s, and there are %s workers: the pod would never be ready; takes at most %s" $at $minReady $workers $workers) -}}
{{- end -}}

{{/* Sockets. */}}
{{- $sockets := get $text "sockets" | default "shared" -}}
{{- if ne $sockets "shared" -}}
{{- if not .listen -}}
{{- fail (printf "%s.sockets is %s, and %s.listen is empty; takes a listen address" $at $sockets $at) -}}
{{- end -}}
{{- range .listen -}}
{{- if contains "unix:" . -}}
{{- fail (printf "%s.sockets is %s, and %s.listen holds %s; takes TCP addresses" $at $sockets $at .) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $sockets "sticky") (gt $number 128) -}}
{{- fail (printf "%s.workers is %s with sockets sticky; takes at most 128" $at $workers) -}}
{{- end -}}
{{- else -}}
{{- range $name := list "readiness.when" "health.check" -}}
{{- if regexMatch "^(tcp$|http=/)" (get $text $name) -}}
{{- fail (printf "%s.%s is %s: it asks the pool's own socket, which the workers share, so no single one can be asked; takes %s.sockets per-worker or sticky, or exec=CMD" $at $name (get $text $name) $at) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (regexMatch "^(tcp=:|http=:)" (get $text "health.check")) (ne $workers "1") -}}
{{- fail (printf "%s.health.check is %s, and whichever of the workers has that port would be asked; takes one worker, or tcp or http=/PATH with sockets per-worker or sticky, or exec=CMD" $at (get $text "health.check")) -}}
{{- end -}}
{{- if and (gt (int .adminPort) 0) (has (toString (int .adminPort)) .listen) -}}
{{- fail (printf "%s.admin.port is %d, and %s.listen has it too; takes another port" $at (int .adminPort) $at) -}}
{{- end -}}

{{/* Drain and rolls. */}}
{{- if and (get $text "drain.stopMessage") (eq (get $text "nodeIpc") "off") -}}
{{- fail (printf "%s.drain.stopMessage reaches nobody with %s.nodeIpc off; takes nodeIpc auto or on" $at $at) -}}
{{- end -}}
{{- if and (has (get $text "roll.maxSurge") (list "0" "0%")) (has (get $text "roll.maxUnavailable") (list "" "0" "0%")) -}}
{{- fail (printf "%s.roll.maxSurge is %s and maxUnavailable 0: nobody may come and nobody may go; takes 1 or more of one of them" $at (get $text "roll.maxSurge")) -}}
{{- end -}}
{{- if ne (empty (get $text "roll.canary")) (empty (get $text "roll.canaryHold")) -}}
{{- fail (printf "%s.roll.canary and canaryHold mean nothing without each other; takes both, such as 1 and 60s, or neither" $at) -}}
{{- end -}}

{{/* Probes. */}}
{{- $probes := $values.probes | default dict -}}
{{- $method := $probes.method | default "http" -}}
{{- if not (has $method (list "http" "exec")) -}}
{{- fail (printf "%s.probes.method is %s; takes http or exec" $at $method) -}}
{{- end -}}
{{- if and (eq $method "http") (eq (int .adminPort) 0) -}}
{{- range $name, $probe := pick $probes "startup" "readiness" "liveness" -}}
{{- if ne (toString $probe.enabled) "false" -}}
{{- fail (printf "%s.admin.enabled is false, and %s.probes.%s asks it; takes probes.method exec" $at $at $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $method "exec") (eq (get $text "control") "off") -}}
{{- fail (printf "%s.control is off, and %s.probes.method exec asks it; takes probes.method http, or another control" $at $at) -}}
{{- end -}}
{{- $startup := $probes.startup | default dict -}}
{{- $needed := include "drainit-lib.startupSeconds" (dict "settings" . "tries" 1) | int64 -}}
{{- if and (ne (toString $startup.enabled) "false") $startup.failureThreshold -}}
{{- $period := $startup.periodSeconds | default 1 | int64 -}}
{{- $given := mul $period (int64 $startup.failureThreshold) -}}
{{- if lt $given $needed -}}
{{- fail (printf "%s.probes.startup gives the pod %ds (periodSeconds times failureThreshold), and drainit may take %ds until it gives a worker up (readiness.timeout, waitForTimeout): the kubelet would end the pod before another is tried; takes failureThreshold from %d on, or null" $at $given $needed (div (add $needed (sub $period 1)) $period)) -}}
{{- end -}}
{{- end -}}

{{/* The hook. */}}
{{- $preStop := $values.preStop | default dict -}}
{{- if $preStop.enabled -}}
{{- $hook := $preStop.method | default "exec" -}}
{{- if not (has $hook (list "exec" "http")) -}}
{{- fail (printf "%s.preStop.method is %s; takes exec or http" $at $hook) -}}
{{- end -}}
{{- if and (eq $hook "http") (eq (int .adminPort) 0) -}}
{{- fail (printf "%s.preStop.method is http, and %s.admin.enabled is false; takes method exec" $at $at) -}}
{{- end -}}
{{- if and (eq $hook "exec") (eq (get $text "control") "off") -}}
{{- fail (printf "%s.preStop.method is exec, and %s.control is off; takes method http, or another control" $at $at) -}}
{{- end -}}
{{- end -}}

{{/* What another user takes. */}}
{{- $security := .securityContext | default dict -}}
{{- if and (get $text "user") (has "ALL" (($security.capabilities | default dict).drop | default list)) -}}
{{- $kept := ($security.capabilities).add | default list -}}
{{- range list "SETUID" "SETGID" "KILL" -}}
{{- if not (has . $kept) -}}
{{- fail (printf "%s.user is %s, and changing the user takes the capabilities SETUID, SETGID and KILL, which securityContext drops; takes podSecurityContext.runAsUser in its place" $at (get $text "user")) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same thing said twice. */}}
{{- range $values.extraEnv -}}
{{- include "drainit-lib.checkVariable" (dict "settings" $settings "name" .name "said" .name "where" (printf "%s.extraEnv" $at)) -}}
{{- end -}}
{{- range $values.extraArgs -}}
{{- $option := regexFind "^--[a-z-]+" . -}}
{{- $variable := printf "DRAINIT_%s" (trimPrefix "--" $option | replace "-" "_" | upper) -}}
{{- include "drainit-lib.checkVariable" (dict "settings" $settings "name" $variable "said" $option "where" (printf "%s.extraArgs" $at)) -}}
{{- end -}}
{{- end -}}

{{/* A variable that a value above is there for. settings, its name, what was said, and where. Also for those of your own chart. */}}
{{- define "drainit-lib.checkVariable" -}}
{{- $at := .settings.at -}}
{{- $meant := dict
      "DRAINIT_GRACE" "drain.terminationGracePeriodSeconds" "DRAINIT_MARGIN" "drain.margin" "DRAINIT_LB_WAIT" "drain.lbWait"
      "DRAINIT_DRAIN_TIMEOUT" "drain.timeout" "DRAINIT_LISTEN" "listen" "DRAINIT_ADMIN" "admin.port"
      "DRAINIT_PRESTOP_HTTP" "preStop.method" -}}
{{- range include "drainit-lib.options" . | fromYamlArray -}}
{{- $_ := set $meant .env .value -}}
{{- end -}}
{{- if hasKey $meant .name -}}
{{- fail (printf "%s says %s, which has a value of its own; takes it as %s.%s" .where .said $at (get $meant .name)) -}}
{{- end -}}
{{- end -}}

{{/* What the cluster has to be able to do. settings, root. */}}
{{- define "drainit-lib.checkCluster" -}}
{{- if and .root (eq .settings.method "imageVolume") (semverCompare "<1.31.0-0" .root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "%s.injection.method is imageVolume, and this cluster, %s, has no image volumes; takes initContainer, or Kubernetes from 1.35 on (from 1.31 on with the feature gate ImageVolume)" .settings.at .root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
