#!/usr/bin/env bash
# Materializes the last whole day of the market chain and the last whole hour of the on-chain one, and fails where a
# step or a check fails. One call takes one partition definition, so there is one for each cadence.
#
#   deploy/materialize.sh [day [hour]]      such as 2026-03-01 2026-03-01-05:00
set -euo pipefail
cd "$(dirname "$0")/.."
day="${1:-$(date -u -d '-2 days' +%F)}"
hour="${2:-$(date -u -d '-3 hours' +%F-%H:00)}"
started="$(date -u +%FT%TZ)"
materialize() { .venv/bin/dagster asset materialize -m tracker_pipeline.definitions "$@"; }

materialize --select 'market/instruments' \
  --config-json "{\"ops\": {\"market__instruments\": {\"config\": {\"symbols\": ${TRACKER_CI_SYMBOLS:-12}}}}}"
materialize --partition "$day" --select 'market/ohlc_15m,market/ohlc_1h,market/ohlc_1d,market/regimes,features/ml_features_15m,labels/strategy_setups,labels/strategy_dca_labels,labels/strategy_swing_labels,labels/strategy_channel_labels'
materialize --select 'onchain/whale_universe'
materialize --partition "$hour" --select 'onchain/whale_balance_snapshots,onchain/steth_rates,onchain/accumulation_scores'

# A check that does not block leaves the exit code of a run at 0, so the results are asked for as well.
.venv/bin/tracker checks --since "$started"
