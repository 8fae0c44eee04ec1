{{/* Values that cannot go together. Each failure names the value, what it is, and what would fit. Takes $ and the settings of drainit. */}}
{{- define "drainit.check" -}}
{{- $settings := .drainit -}}
{{- with .root.Values -}}

{{- if .image.repository -}}
{{- if not (or .image.tag .image.digest) -}}
{{- fail (printf "image.tag is empty, and so is image.digest; takes the tag or the digest of %s that is to run" .image.repository) -}}
{{- end -}}
{{- else if or .image.tag .image.digest .command -}}
{{- fail "image.repository is empty; takes the server's image, since image.tag, image.digest and command are said" -}}
{{- end -}}

{{- if and (eq $settings.method "baked") (not .image.repository) -}}
{{- fail "drainit.injection.method is baked, and image.repository is empty: the server for demonstration has no drainit in it; takes the image that has" -}}
{{- end -}}

{{- range .env -}}
{{- include "drainit-lib.checkVariable" (dict "settings" $settings "name" .name "said" .name "where" "env") -}}
{{- end -}}
{{- if .lifecycle.preStop -}}
{{- fail "lifecycle.preStop is said: what it takes would come on top of drainit.drain.lbWait; takes drainit.preStop.enabled, which shares its budget, or nothing: drainit waits after SIGTERM" -}}
{{- end -}}

{{- range list "containers" "initContainers" "volumes" "terminationGracePeriodSeconds" "serviceAccountName" "automountServiceAccountToken" "enableServiceLinks" "securityContext" "topologySpreadConstraints" "nodeSelector" "affinity" "tolerations" "priorityClassName" "imagePullSecrets" -}}
{{- if hasKey $.root.Values.podSpec . -}}
{{- fail (printf "podSpec.%s is said, and the chart says it too; takes %s" . (get (dict
      "containers" "extraContainers" "initContainers" "extraInitContainers" "terminationGracePeriodSeconds" "drainit.drain.terminationGracePeriodSeconds"
      "serviceAccountName" "serviceAccount.name" "automountServiceAccountToken" "serviceAccount.automount" "securityContext" "podSecurityContext"
      "topologySpreadConstraints" "topologySpread.constraints" "enableServiceLinks" "no other") . | default .)) -}}
{{- end -}}
{{- end -}}

{{- if and (eq .strategy.type "RollingUpdate") (has (toString .strategy.rollingUpdate.maxSurge) (list "0" "0%")) (has (toString .strategy.rollingUpdate.maxUnavailable) (list "0" "0%")) -}}
{{- fail "strategy.rollingUpdate.maxSurge is 0 and maxUnavailable too: nobody may come and nobody may go; takes 1 or more of one of them" -}}
{{- end -}}
{{- if ge (int .minReadySeconds) (int .progressDeadlineSeconds) -}}
{{- fail (printf "minReadySeconds is %d, and progressDeadlineSeconds %d: every rollout would fail; takes a progressDeadlineSeconds of more than %d" (int .minReadySeconds) (int .progressDeadlineSeconds) (int .minReadySeconds)) -}}
{{- end -}}

{{- with .drainit.probes.startup -}}
{{- $starting := add (mul (.periodSeconds | int64) (include "drainit-lib.startupThreshold" $settings | int64)) (.initialDelaySeconds | default 0 | int64) ($.root.Values.minReadySeconds | int64) -}}
{{- if and .enabled (ge $starting ($.root.Values.progressDeadlineSeconds | int64)) -}}
{{- fail (printf "progressDeadlineSeconds is %d, and a pod may take %ds to start and be ready (drainit.probes.startup, minReadySeconds); takes more than %d" (int $.root.Values.progressDeadlineSeconds) $starting $starting) -}}
{{- end -}}
{{- end -}}

{{- $replicas := include "drainit.replicas" $.root | int -}}
{{- with .podDisruptionBudget -}}
{{- if .enabled -}}
{{- $most := toString .maxUnavailable -}}
{{- $least := toString .minAvailable -}}
{{- if and (ne $least "") (ne $most "") -}}
{{- fail (printf "podDisruptionBudget.minAvailable is %s and maxUnavailable %s; takes one of them, and \"\" for the other" $least $most) -}}
{{- else if and (eq $least "") (eq $most "") -}}
{{- fail "podDisruptionBudget has neither maxUnavailable nor minAvailable; takes one of them, such as maxUnavailable 1" -}}
{{- else if has $most (list "0" "0%") -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable is %s: no pod could ever be evicted, and no node drained; takes 1 or more" $most) -}}
{{- else if or (eq $least "100%") (and (regexMatch "^[0-9]+$" $least) (ge (int $least) $replicas)) -}}
{{- fail (printf "podDisruptionBudget.minAvailable is %s of %d pods: none could ever be evicted, and no node drained; takes less, or maxUnavailable" $least $replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $requests := .resources.requests | default dict -}}
{{- with .autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, and maxReplicas %d; takes at most %d" (int .minReplicas) (int .maxReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and (gt (int .targetCPUUtilizationPercentage) 0) (not $requests.cpu) -}}
{{- fail (printf "autoscaling.targetCPUUtilizationPercentage is %d, a share of resources.requests.cpu, which is not said; takes resources.requests.cpu, such as 100m" (int .targetCPUUtilizationPercentage)) -}}
{{- end -}}
{{- if and (gt (int .targetMemoryUtilizationPercentage) 0) (not $requests.memory) -}}
{{- fail (printf "autoscaling.targetMemoryUtilizationPercentage is %d, a share of resources.requests.memory, which is not said; takes resources.requests.memory, such as 128Mi" (int .targetMemoryUtilizationPercentage)) -}}
{{- end -}}
{{- if not (or (gt (int .targetCPUUtilizationPercentage) 0) (gt (int .targetMemoryUtilizationPercentage) 0) .metrics) -}}
{{- fail "autoscaling.enabled is true, and there is nothing to scale by; takes targetCPUUtilizationPercentage, targetMemoryUtilizationPercentage or metrics" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .metrics -}}
{{- if and .podMonitor.enabled .serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled are both true, and everything would be counted twice; takes one of them" -}}
{{- end -}}
{{- if and (eq (int $settings.adminPort) 0) (or .podAnnotations .podMonitor.enabled .serviceMonitor.enabled) -}}
{{- fail "drainit.admin.enabled is false, and metrics are to be had from nowhere else; takes true, or no podAnnotations, podMonitor and serviceMonitor" -}}
{{- end -}}
{{- end -}}

{{- with .config -}}
{{- if and .files .existingConfigMap -}}
{{- fail (printf "config.files and config.existingConfigMap (%s) are both said; takes one of them" .existingConfigMap) -}}
{{- end -}}
{{- if and .existingConfigMap (eq .onChange "rollout") -}}
{{- fail (printf "config.onChange is rollout, and a chart cannot see when %s changes; takes watch or nothing" .existingConfigMap) -}}
{{- end -}}
{{- end -}}
{{- if and (or .config.files .config.existingConfigMap) (eq .config.onChange "watch") (not $settings.listen) (eq (toString .drainit.workers) "1") -}}
{{- fail "config.onChange is watch, and one worker without a socket of drainit's has nothing to roll; takes drainit.listen, or rollout" -}}
{{- end -}}

{{- if and (eq .service.type "ClusterIP") (gt (int .service.nodePort) 0) -}}
{{- fail (printf "service.nodePort is %d, and service.type ClusterIP has none; takes NodePort or LoadBalancer, or 0" (int .service.nodePort)) -}}
{{- end -}}
{{- if and (eq .service.type "ClusterIP") .service.externalTrafficPolicy -}}
{{- fail (printf "service.externalTrafficPolicy is %s, and service.type ClusterIP has none; takes NodePort or LoadBalancer, or \"\"" .service.externalTrafficPolicy) -}}
{{- end -}}

{{- end -}}
{{- end -}}
