# The install commands of Flagger's guide to Crossover.
helm repo add crossover https://mumoshu.github.io/crossover

helm upgrade --install envoy crossover/envoy \
--namespace test \
-f <(cat <<EOF
smi:
  apiVersions:
    trafficSplits: v1alpha1
upstreams:
  podinfo:
    smi:
      enabled: true
    backends:
      podinfo-primary:
        port: 9898
        weight: 100
      podinfo-canary:
        port: 9898
        weight: 0
EOF
)

helm repo add flagger https://flagger.app

helm upgrade -i flagger flagger/flagger \
--namespace test \
--set prometheus.install=true \
--set meshProvider=smi:crossover

helm upgrade -i flagger-loadtester flagger/loadtester \
--namespace=test

helm upgrade -i flagger-grafana flagger/grafana \
--namespace=test \
--set url=http://flagger-prometheus:9090
