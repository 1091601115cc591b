{{/* Generated: UPDATE_GENERATED=1 cargo test -p aviary */}}
{{- define "aviary.flags" }}
{{- $flags := list
  (list "kubeconfig-qps" "100" .Values.kubeconfigQPS)
  (list "kubeconfig-burst" "250" .Values.kubeconfigBurst)
  (list "kubeconfig-service-mesh" "" (include "aviary.kubeconfigServiceMesh" .))
  (list "namespace" "" .Values.namespace)
  (list "no-cross-namespace-refs" "false" .Values.noCrossNamespaceRefs)
  (list "mesh-provider" "istio" .Values.meshProvider)
  (list "selector-labels" "app,name,app.kubernetes.io/name" .Values.selectorLabels)
  (list "include-label-prefix" "" .Values.includeLabelPrefix)
  (list "enable-config-tracking" "true" .Values.configTracking.enabled)
  (list "traffic-settle-time" "3s" .Values.trafficSettleTime)
  (list "endpoints-settle-time" "1s" .Values.endpointsSettleTime)
  (list "webhook-success" "200-202" .Values.webhookSuccess)
  (list "ingress-annotations-prefix" "nginx.ingress.kubernetes.io" .Values.ingressAnnotationsPrefix)
  (list "ingress-class" "" .Values.ingressClass)
  (list "metrics-server" "http://prometheus:9090" (include "aviary.metricsServer" .))
  (list "control-loop-interval" "10s" .Values.controlLoopInterval)
  (list "metrics-errors" "hold" .Values.metricsErrors)
  (list "metrics-outage-limit" "10m" .Values.metricsOutageLimit)
  (list "slack-user" "flagger" .Values.slack.user)
  (list "slack-channel" "" (include "aviary.slackChannel" .))
  (list "cluster-name" "" .Values.clusterName)
  (list "log-level" "debug" .Values.logLevel)
  (list "zap-encoding" "json" .Values.zapEncoding)
  (list "enable-leader-election" "false" .Values.leaderElection.enabled)
  (list "leader-election-namespace" "kube-system" (ternary .Release.Namespace "" .Values.leaderElection.enabled))
  (list "leader-election-lease-duration" "15s" .Values.leaderElection.leaseDuration)
  (list "leader-election-renew-deadline" "10s" .Values.leaderElection.renewDeadline)
  (list "leader-election-retry-period" "2s" .Values.leaderElection.retryPeriod)
  (list "threadiness" "2" .Values.threadiness)
  (list "zap-replace-globals" "false" .Values.zapReplaceGlobals)
}}
{{- range $flags }}
{{- $value := index . 2 }}
{{- /* What is not said and what is the default need not be said. */}}
{{- if not (or (kindIs "invalid" $value) (has (toString $value) (list "" (index . 1)))) }}
- {{ printf "--%s=%s" (index . 0) (include "aviary.text" $value) | quote }}
{{- end }}
{{- end }}
{{- end }}
