# The install command of Flagger 0.1.0-beta.6, with both addresses of its repository, Steerer's arguments, which were its own, too, and
# the values of its chart.
helm repo add flagger https://stefanprodan.github.io/flagger
helm repo add flagger https://flagger.app

helm upgrade -i flagger flagger/flagger \
--namespace=istio-system \
-f <(cat <<EOF
image:
  repository: stefanprodan/flagger
  tag: 0.1.0-beta.6
  pullPolicy: IfNotPresent
controlLoopInterval: "10s"
EOF
) \
--set metricsServer=http://prometheus.istio-system:9090
