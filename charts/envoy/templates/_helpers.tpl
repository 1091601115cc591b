{{- define "envoy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "envoy.fullname" -}}
{{- $name := include "envoy.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "envoy.selectorLabels" -}}
app.kubernetes.io/name: {{ include "envoy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "envoy.labels" -}}
{{ include "envoy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "envoy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "envoy.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* Names of the upstreams that follow a TrafficSplit, as a JSON list. */}}
{{- define "envoy.splits" -}}
{{- $splits := list -}}
{{- range $name, $upstream := .Values.upstreams -}}
{{- if dig "smi" "enabled" false $upstream -}}
{{- $splits = append $splits $name -}}
{{- end -}}
{{- end -}}
{{- toJson $splits -}}
{{- end }}

{{/* Arguments that init container and sidecar share. */}}
{{- define "envoy.crossoverArguments" -}}
- crossover
- {{ printf "--configmap=%s-xds" (include "envoy.fullname" .) | quote }}
{{- range fromJsonArray (include "envoy.splits" .) }}
- {{ printf "--trafficsplit=%s" . | quote }}
{{- end }}
- {{ printf "--trafficsplit-api-version=%s" .Values.smi.apiVersions.trafficSplits | quote }}
{{- end }}

{{/* What both have besides. */}}
{{- define "envoy.crossoverContainer" -}}
image: {{ printf "%s:%s" .Values.xdsLoader.image.repository (include "envoy.text" (default .Chart.AppVersion .Values.xdsLoader.image.tag)) | quote }}
imagePullPolicy: {{ .Values.xdsLoader.image.pullPolicy }}
{{- if .Values.securityContext.enabled }}
securityContext:
  {{- toYaml .Values.securityContext.context | nindent 2 }}
{{- end }}
env:
  - name: POD_NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
{{- with .Values.xdsLoader.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: xds
    mountPath: /srv/runtime
{{- end }}

{{/* A value as text. Numbers of a values file are floating-point numbers to Helm, and large ones would become 1e+06. */}}
{{- define "envoy.text" -}}
{{- ternary (toJson .) (toString .) (kindIs "float64" .) }}
{{- end }}

{{/* Labels or annotations: `--set podLabels.a=1` makes a number, and Kubernetes takes texts only. */}}
{{- define "envoy.texts" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ include "envoy.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of the pods: those by which they are selected, and the user's. Guides select them by `app`. */}}
{{- define "envoy.podLabels" -}}
{{- $own := include "envoy.selectorLabels" . | fromYaml }}
{{- range $name, $_ := .Values.podLabels }}
{{- if hasKey $own $name }}
{{- fail (printf "podLabels.%s: the chart selects its pods by this label; leave it out" $name) }}
{{- end }}
{{- end }}
{{- include "envoy.texts" (merge $own (default dict .Values.podLabels) (dict "app" (include "envoy.name" .))) | trim }}
{{- end }}
