//! From flags to the settings of the controller.

use aviary_actors::ControllerConfig;
use aviary_actors::hooks::{GlobalNotifier, WebhookSuccess};
use aviary_actors::watches::Scope;
use aviary_crds::ValidationOptions;
use aviary_providers::notify::AlertTarget;
use aviary_rollout::OutagePolicy;

use crate::args::{MetricsErrors, RunArgs, WebhookStatuses, comma_list};
use crate::version;

/// The settings that the flags ask for. The demo uses this too, so that it shows the operator as it ships.
pub fn controller_config(args: &RunArgs) -> ControllerConfig {
    let namespaces = args.namespaces();
    ControllerConfig {
        providers: aviary_providers::Settings {
            mesh_provider: args.mesh_provider.clone(),
            metrics_server: args.metrics_server.clone(),
            selector_labels: owned(&args.selector_labels),
            include_label_prefixes: owned(&args.include_label_prefix),
            config_tracking: args.enable_config_tracking,
            // Only the connection tells.
            mesh_is_elsewhere: false,
        },
        validation: ValidationOptions {
            no_cross_namespace_refs: args.no_cross_namespace_refs,
            control_loop_interval: args.control_loop_interval,
            shortest_interval: args.shortest_interval,
        },
        outage: match args.metrics_errors {
            MetricsErrors::Hold => OutagePolicy::Hold { limit: args.metrics_outage_limit },
            MetricsErrors::Fail => OutagePolicy::Fail,
        },
        traffic_settle_time: args.traffic_settle_time,
        endpoints_settle_time: args.endpoints_settle_time,
        cluster_name: non_empty(&args.cluster_name),
        notifier: notifier(args),
        event_webhook: non_empty(&args.event_webhook),
        webhook_success: match args.webhook_success {
            WebhookStatuses::UpTo202 => WebhookSuccess::UpTo202,
            WebhookStatuses::Any2xx => WebhookSuccess::Any2xx,
        },
        scope: if namespaces.is_empty() { Scope::Cluster } else { Scope::Namespaces(namespaces) },
        version: version::VERSION.to_owned(),
        ..ControllerConfig::default()
    }
}

/// Microsoft Teams if it has an address, or else Slack, as in Flagger. Slack needs a channel; without one nothing is
/// sent, which the caller says in the log.
fn notifier(args: &RunArgs) -> Option<GlobalNotifier> {
    let target = |address: &str, proxy: &str| AlertTarget {
        address: address.to_owned(),
        channel: args.slack_channel.clone(),
        username: args.slack_user.clone(),
        token: None,
        proxy: non_empty(proxy),
    };
    if !args.msteams_url.is_empty() {
        let target = target(&args.msteams_url, &args.msteams_proxy_url);
        return Some(GlobalNotifier { channel: "msteams".to_owned(), target });
    }
    if args.slack_url.is_empty() || args.slack_channel.is_empty() {
        return None;
    }
    let target = AlertTarget { token: non_empty(&args.slack_token), ..target(&args.slack_url, &args.slack_proxy_url) };
    Some(GlobalNotifier { channel: "slack".to_owned(), target })
}

fn owned(list: &str) -> Vec<String> {
    comma_list(list).map(str::to_owned).collect()
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::ffi::OsString;
    use std::time::Duration;

    use aviary_actors::ControllerConfig;
    use aviary_actors::watches::Scope;
    use aviary_rollout::OutagePolicy;

    use crate::args::{Cli, Command};

    fn config(flags: &[&str]) -> ControllerConfig {
        let argv = ["flagger"].iter().chain(flags).map(OsString::from);
        let Ok(Cli { command: Command::Run(run) }) = Cli::parse_from(argv, |_| None) else { panic!("{flags:?}") };
        super::controller_config(&run)
    }

    #[test]
    fn without_flags_the_settings_are_the_defaults() {
        let (ours, default) = (config(&[]), ControllerConfig::default());
        assert_eq!(format!("{:?}", ours.providers), format!("{:?}", default.providers));
        assert_eq!(ours.outage, default.outage);
        assert_eq!(ours.scope, Scope::Cluster);
        assert!(ours.notifier.is_none() && ours.cluster_name.is_none() && !ours.validation.no_cross_namespace_refs);
    }

    #[test]
    fn every_flag_arrives() {
        let config = config(&[
            "-mesh-provider=kubernetes",
            "-metrics-server=http://p",
            "-selector-labels=a,b",
            "-include-label-prefix=*",
            "-enable-config-tracking=false",
            "-no-cross-namespace-refs",
            "-metrics-outage-limit=90s",
            "-cluster-name=prod",
            "-namespace=x,y",
        ]);
        assert_eq!(config.providers.mesh_provider, "kubernetes");
        assert_eq!(config.providers.metrics_server, "http://p");
        assert_eq!(config.providers.selector_labels, ["a", "b"]);
        assert_eq!(config.providers.include_label_prefixes, ["*"]);
        assert!(!config.providers.config_tracking && config.validation.no_cross_namespace_refs);
        assert_eq!(config.outage, OutagePolicy::Hold { limit: Duration::from_secs(90) });
        assert_eq!(config.cluster_name.as_deref(), Some("prod"));
        assert_eq!(config.scope, Scope::Namespaces(vec!["x".into(), "y".into()]));
    }

    #[test]
    fn errors_of_metrics_can_fail_as_in_flagger() {
        assert_eq!(config(&["-metrics-errors=fail"]).outage, OutagePolicy::Fail);
    }

    #[test]
    fn teams_wins_over_slack_and_slack_needs_a_channel() {
        let slack = ["-slack-url=http://s", "-slack-token=t", "-slack-proxy-url=http://proxy"];
        assert!(config(&slack).notifier.is_none());
        let slack = [&slack[..], &["-slack-channel=general"]].concat();
        let notifier = config(&slack).notifier.unwrap();
        assert_eq!((notifier.channel.as_str(), notifier.target.address.as_str()), ("slack", "http://s"));
        assert_eq!(
            (notifier.target.token.as_deref(), notifier.target.proxy.as_deref()),
            (Some("t"), Some("http://proxy"))
        );
        let notifier = config(&[&slack[..], &["-msteams-url=http://m"]].concat()).notifier.unwrap();
        assert_eq!((notifier.channel.as_str(), notifier.target.address.as_str()), ("msteams", "http://m"));
        assert_eq!((notifier.target.token.as_deref(), notifier.target.proxy.as_deref()), (None, None));
    }
}
