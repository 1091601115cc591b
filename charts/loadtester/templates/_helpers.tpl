{{- define "loadtester.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "loadtester.fullname" -}}
{{- $name := include "loadtester.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "loadtester.selectorLabels" -}}
app.kubernetes.io/name: {{ include "loadtester.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "loadtester.labels" -}}
{{ include "loadtester.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "loadtester.serviceAccountName" -}}
{{- if .Values.rbac.create -}}
{{- default (include "loadtester.fullname" .) .Values.serviceAccountName }}
{{- else -}}
{{- default "default" .Values.serviceAccountName }}
{{- end -}}
{{- end }}

{{/* A value as text. Numbers of a values file are floating-point numbers to Helm, and large ones would become 1e+06. */}}
{{- define "loadtester.text" -}}
{{- ternary (toJson .) (toString .) (kindIs "float64" .) }}
{{- end }}

{{/* Labels or annotations: `--set podLabels.a=1` makes a number, and Kubernetes takes texts only. */}}
{{- define "loadtester.texts" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }}: {{ include "loadtester.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels of the pods: those by which they are selected, and the user's. Guides select them by `app`. */}}
{{- define "loadtester.podLabels" -}}
{{- $own := include "loadtester.selectorLabels" . | fromYaml }}
{{- range $name, $_ := .Values.podLabels }}
{{- if hasKey $own $name }}
{{- fail (printf "podLabels.%s: the chart selects its pods by this label; leave it out" $name) }}
{{- end }}
{{- end }}
{{- include "loadtester.texts" (merge $own (default dict .Values.podLabels) (dict "app" (include "loadtester.name" .))) | trim }}
{{- end }}
