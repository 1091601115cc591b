{{/* Names of releases that stand in for a predecessor keep the names that its guide uses: deploy/flagger, flagger-prometheus. */}}
{{- define "aviary.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "aviary.fullname" -}}
{{- $name := include "aviary.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if or (contains $name .Release.Name) (and (not .Values.nameOverride) (has .Release.Name (list "flagger" "steerer" "birdwatch"))) -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "aviary.selectorLabels" -}}
app.kubernetes.io/name: {{ include "aviary.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "aviary.labels" -}}
{{ include "aviary.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "aviary.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aviary.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* Namespaces that are watched, as a JSON array; an empty one for all. */}}
{{- define "aviary.namespaces" -}}
{{- $names := list -}}
{{- range splitList "," (default "" .Values.namespace) -}}
{{- if trim . -}}{{- $names = append $names (trim .) -}}{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end }}

{{/* Where the Lease of the leader is: the operator looks for it in the first namespace that it watches. */}}
{{- define "aviary.leaseNamespace" -}}
{{- $namespaces := include "aviary.namespaces" . | fromJsonArray -}}
{{- if $namespaces -}}{{- first $namespaces -}}{{- else -}}{{- .Release.Namespace -}}{{- end -}}
{{- end }}

{{- define "aviary.metricsServer" -}}
{{- if .Values.prometheus.install -}}
http://{{ include "aviary.fullname" . }}-prometheus:9090
{{- else -}}
{{- default .Values.metricsServer .Values.prometheusUrl -}}
{{- end -}}
{{- end }}

{{/* The chart of the BirdWatch otomator took the bot's token and nothing else: it knew where Slack is, and the channel. */}}
{{- define "aviary.slackUrl" -}}
{{- default (ternary "https://slack.com/api/chat.postMessage" "" (not (empty .Values.slackToken))) .Values.slack.url -}}
{{- end }}

{{- define "aviary.slackChannel" -}}
{{- default (ternary "deployment" "" (not (empty .Values.slackToken))) .Values.slack.channel -}}
{{- end }}

{{/* Environment variables that hold tokens and addresses which are as good as one; the operator reads them before its flags. */}}
{{- define "aviary.secrets" -}}
{{- $secrets := dict -}}
{{- $_ := set $secrets "SLACK_TOKEN" (default .Values.slackToken .Values.slack.token) -}}
{{- $_ := set $secrets "SLACK_URL" (include "aviary.slackUrl" .) -}}
{{- $_ := set $secrets "SLACK_PROXY_URL" (default .Values.slack.proxy .Values.slack.proxyUrl) -}}
{{- $_ := set $secrets "MSTEAMS_URL" .Values.msteams.url -}}
{{- $_ := set $secrets "MSTEAMS_PROXY_URL" .Values.msteams.proxyUrl -}}
{{- $_ := set $secrets "EVENT_WEBHOOK_URL" .Values.eventWebhook -}}
{{- $given := dict -}}
{{- range $name, $value := $secrets -}}
{{- if $value -}}{{- $_ := set $given $name $value -}}{{- end -}}
{{- end -}}
{{- $given | toJson -}}
{{- end }}

{{- define "aviary.kubeconfigDirectory" -}}
/etc/aviary/controlplane
{{- end }}

{{- define "aviary.kubeconfigServiceMesh" -}}
{{- with .Values.controlplane.kubeconfig -}}
{{- if .secretName -}}{{ include "aviary.kubeconfigDirectory" . }}/{{ .key }}{{- end -}}
{{- end -}}
{{- end }}

{{/* The default affinity of Flagger's values names it. */}}
{{- define "flagger.name" -}}
{{- include "aviary.name" . }}
{{- end }}

{{/* A value as text. Numbers of a values file are floating-point numbers to Helm, and large ones would become 1e+06. */}}
{{- define "aviary.text" -}}
{{- ternary (toJson .) (toString .) (kindIs "float64" .) }}
{{- end }}

{{/* Labels or annotations: `--set podLabels.a=1` makes a number, and Kubernetes takes texts only. */}}
{{- define "aviary.texts" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ include "aviary.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of the pods: those by which they are selected, and the user's. */}}
{{- define "aviary.podLabels" -}}
{{- $own := include "aviary.selectorLabels" . | fromYaml }}
{{- range $name, $_ := .Values.podLabels }}
{{- if hasKey $own $name }}
{{- fail (printf "podLabels.%s: the chart selects its pods by this label; leave it out" $name) }}
{{- end }}
{{- end }}
{{- include "aviary.texts" (merge $own (default dict .Values.podLabels)) | trim }}
{{- end }}
