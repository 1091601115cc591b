# The install command of BirdWatch's README, with something in the place of <your-slack-token> and <your-prometheus-url>.
helm install ./helm --name birdwatch --set slackToken=xoxb-1 --set prometheusUrl=http://prometheus.istio-system:9090
