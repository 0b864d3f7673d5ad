{{- define "llm-dispatch.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "llm-dispatch.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "llm-dispatch.labels" -}}
{{ include "llm-dispatch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* What values.schema.json cannot say: which values go together. */ -}}
{{- define "llm-dispatch.check" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: name the image that you have made with packaging/Dockerfile" -}}
{{- end -}}
{{- $sources := 0 -}}
{{- range list .Values.clients.tokensSecret .Values.clients.databaseSecret .Values.clients.open -}}
{{- if . -}}{{- $sources = add1 $sources -}}{{- end -}}
{{- end -}}
{{- if ne (int $sources) 1 -}}
{{- fail "clients: give exactly one of tokensSecret, databaseSecret and open" -}}
{{- end -}}
{{- with .Values.engines -}}
{{- if and .redis .redisSecret -}}
{{- fail "engines: give redis or redisSecret, not both" -}}
{{- end -}}
{{- if contains "@" .redis -}}
{{- fail "engines.redis: a password does not belong into values; make a Secret and name it in engines.redisSecret" -}}
{{- end -}}
{{- if not (or .redis .redisSecret .static) -}}
{{- fail "engines: give redis, redisSecret or static: there is no engine otherwise" -}}
{{- end -}}
{{- range .static -}}
{{- if and .key (not $.Values.engines.keysSecret) -}}
{{- fail (printf "engines.static: %s has a key, but engines.keysSecret does not say where it is" .url) -}}
{{- end -}}
{{- if and (hasPrefix "https:" .url) (not $.Values.engines.https) -}}
{{- fail (printf "engines.static: %s needs engines.https: true" .url) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.allow) -}}
{{- fail "metrics.allow: say from which addresses Prometheus comes, or the ServiceMonitor gets 403" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.metrics) -}}
{{- fail "networkPolicy.metrics: say where Prometheus is, or the ServiceMonitor gets no answer" -}}
{{- end -}}
{{- end -}}
