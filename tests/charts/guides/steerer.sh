# The install command of Steerer's guide.
helm repo add steerer https://stefanprodan.github.io/steerer

helm upgrade --install steerer steerer/steerer \
--namespace=istio-system \
--set metricsServer=http://prometheus.istio-system:9090 \
--set controlLoopInterval=1m
