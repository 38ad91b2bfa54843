{{- define "yolox.selector" -}}
app.kubernetes.io/name: yolox-serve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "yolox.labels" -}}
{{ include "yolox.selector" . }}
app.kubernetes.io/part-of: yolox-serve
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "yolox.metadata" -}}
name: {{ .Release.Name }}
labels:
  {{- include "yolox.labels" . | nindent 2 }}
{{- end }}

{{- define "yolox.image" -}}
{{- $tag := .Values.image.tag | default (ternary "gpu" "cpu" .Values.gpu.enabled) -}}
{{- with .Values.image.digest }}{{ $.Values.image.repository }}@{{ . }}{{ else }}{{ .Values.image.repository }}:{{ $tag }}{{ end }}
{{- end }}

{{- define "yolox.resources" -}}
{{- $cpu := dict "cpu" "2" "memory" "2Gi" "ephemeral-storage" "512Mi" -}}
{{- $gpu := dict "cpu" "4" "memory" "8Gi" "ephemeral-storage" "1Gi" "nvidia.com/gpu" "1" -}}
{{- $given := .Values.resources | default (ternary $gpu $cpu .Values.gpu.enabled) -}}
requests: {{ toJson $given }}
limits: {{ toJson $given }}
{{- end }}

{{- define "yolox.settings" -}}
YOLOX_METRICS_PORT: "9100"
{{- if .Values.apiKeysSecret }}
YOLOX_API_KEY_FILE: /run/yolox/api-keys
{{- end }}
{{- if .Values.gpu.enabled }}
YOLOX_DEVICE: cuda
{{- end }}
{{- if .Values.models.image }}
YOLOX_MODELS: /models
{{- end }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | toJson | trimAll "\"" | quote }}
{{- end }}
{{- end }}

{{- define "yolox.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies: [{type: Percent, value: 100, periodSeconds: 30}, {type: Pods, value: 2, periodSeconds: 30}]
  selectPolicy: Max
scaleDown:
  stabilizationWindowSeconds: 300
  policies: [{type: Percent, value: 25, periodSeconds: 60}]
{{- end }}
