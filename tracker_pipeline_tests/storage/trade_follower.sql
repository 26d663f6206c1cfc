-- The 13 transactional and 9 configuration tables of an earlier trade follower: zone-less times in UTC, surrogate ids.

CREATE TABLE prices (
    id bigserial,
    "timestamp" timestamp NOT NULL,
    token varchar(20) NOT NULL,
    price double precision NOT NULL,
    source varchar(20) DEFAULT 'jupiter',
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON prices ("timestamp");
CREATE INDEX ON prices (created_at);
CREATE INDEX ON prices (token, "timestamp");
CREATE TABLE sol_stablecoin_trades (
    id bigserial,
    wallet_address varchar(255) NOT NULL,
    signature varchar(255),
    trade_timestamp timestamp NOT NULL,
    stablecoin_amount numeric(20,8),
    sol_amount numeric(20,8),
    price numeric(20,8),
    direction varchar(10),
    perp_direction varchar(10),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON sol_stablecoin_trades (direction);
CREATE INDEX ON sol_stablecoin_trades (trade_timestamp);
CREATE INDEX ON sol_stablecoin_trades (wallet_address);
CREATE INDEX ON sol_stablecoin_trades (wallet_address, id);
CREATE TABLE order_book_features (
    id bigserial,
    "timestamp" timestamp NOT NULL,
    symbol varchar(20) NOT NULL DEFAULT 'SOLUSDT',
    mid_price double precision,
    spread_bps double precision,
    bid_liquidity double precision,
    ask_liquidity double precision,
    volume_imbalance double precision,
    depth_imbalance_ratio double precision,
    microprice double precision,
    vwap double precision,
    total_depth_10 double precision,
    bid_vwap_10 double precision,
    ask_vwap_10 double precision,
    bid_slope double precision,
    ask_slope double precision,
    microprice_dev_bps double precision,
    bid_depth_bps_5 double precision,
    bid_depth_bps_10 double precision,
    bid_depth_bps_25 double precision,
    ask_depth_bps_5 double precision,
    ask_depth_bps_10 double precision,
    ask_depth_bps_25 double precision,
    net_liquidity_change_1s double precision,
    bids_json jsonb,
    asks_json jsonb,
    source varchar(20),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON order_book_features ("timestamp");
CREATE INDEX ON order_book_features (symbol);
CREATE TABLE whale_movements (
    id bigserial,
    signature varchar(255),
    wallet_address varchar(255) NOT NULL,
    whale_type varchar(50),
    current_balance double precision,
    sol_change double precision,
    abs_change double precision,
    percentage_moved double precision,
    direction varchar(10),
    action varchar(50),
    movement_significance varchar(50),
    previous_balance double precision,
    fee_paid double precision,
    block_time bigint,
    "timestamp" timestamp,
    received_at timestamp,
    slot bigint,
    has_perp_position boolean,
    perp_platform varchar(50),
    perp_direction varchar(10),
    perp_size double precision,
    perp_leverage double precision,
    perp_entry_price double precision,
    raw_data_json text,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON whale_movements ("timestamp");
CREATE INDEX ON whale_movements (signature);
CREATE INDEX ON whale_movements (wallet_address);
CREATE INDEX ON whale_movements (whale_type);
CREATE TABLE cycle_tracker (
    id bigserial,
    coin_id integer NOT NULL,
    threshold numeric(5,2) NOT NULL,
    cycle_start_time timestamp NOT NULL,
    cycle_end_time timestamp,
    sequence_start_id bigint NOT NULL,
    sequence_start_price numeric(20,8) NOT NULL,
    highest_price_reached numeric(20,8) NOT NULL,
    lowest_price_reached numeric(20,8) NOT NULL,
    max_percent_increase numeric(10,4) NOT NULL,
    max_percent_increase_from_lowest numeric(10,4) NOT NULL,
    total_data_points integer DEFAULT 0,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON cycle_tracker (coin_id);
CREATE INDEX ON cycle_tracker (cycle_end_time);
CREATE INDEX ON cycle_tracker (cycle_start_time);
CREATE INDEX ON cycle_tracker (threshold);
CREATE TABLE follow_the_goat_buyins (
    id bigserial,
    play_id integer,
    wallet_address varchar(255) NOT NULL,
    original_trade_id bigint NOT NULL,
    tolerance double precision DEFAULT 0.3,
    price_cycle integer,
    trade_signature varchar(255),
    block_timestamp timestamp,
    quote_amount numeric(20,8),
    base_amount numeric(20,8),
    price numeric(20,8),
    direction varchar(10),
    is_buy boolean DEFAULT true,
    followed_at timestamp DEFAULT now(),
    our_entry_price numeric(20,8),
    our_position_size numeric(20,8),
    our_exit_price numeric(20,8),
    our_exit_timestamp timestamp,
    our_profit_loss numeric(20,8),
    our_status varchar(20) DEFAULT 'pending',
    swap_response jsonb,
    sell_swap_response jsonb,
    price_movements jsonb,
    live_trade integer DEFAULT 0,
    higest_price_reached numeric(20,8),
    current_price numeric(20,8),
    entry_log jsonb,
    fifteen_min_trail jsonb,
    pattern_validator_log jsonb,
    potential_gains double precision,
    PRIMARY KEY (id)
);
CREATE INDEX ON follow_the_goat_buyins (followed_at);
CREATE INDEX ON follow_the_goat_buyins (followed_at, our_status, play_id);
CREATE INDEX ON follow_the_goat_buyins (our_status);
CREATE INDEX ON follow_the_goat_buyins (play_id);
CREATE INDEX ON follow_the_goat_buyins (wallet_address);
CREATE TABLE follow_the_goat_buyins_price_checks (
    id bigserial,
    buyin_id bigint NOT NULL,
    checked_at timestamp NOT NULL,
    current_price numeric(20,8) NOT NULL,
    entry_price numeric(20,8),
    highest_price numeric(20,8),
    reference_price numeric(20,8),
    gain_from_entry numeric(10,6) NOT NULL,
    drop_from_high numeric(10,6) NOT NULL,
    drop_from_entry numeric(10,6),
    drop_from_reference numeric(10,6),
    tolerance numeric(10,6) NOT NULL,
    basis varchar(10),
    bucket varchar(10),
    applied_rule jsonb,
    should_sell boolean DEFAULT false,
    is_backfill boolean DEFAULT false,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON follow_the_goat_buyins_price_checks (buyin_id);
CREATE INDEX ON follow_the_goat_buyins_price_checks (checked_at);
CREATE INDEX ON follow_the_goat_buyins_price_checks (should_sell);
CREATE TABLE price_points (
    id bigserial,
    ts_idx bigint NOT NULL,
    value double precision NOT NULL,
    created_at timestamp DEFAULT now(),
    coin_id integer DEFAULT 5,
    PRIMARY KEY (id)
);
CREATE INDEX ON price_points (coin_id);
CREATE INDEX ON price_points (created_at);
CREATE TABLE price_analysis (
    id serial,
    coin_id integer NOT NULL,
    price_point_id bigint NOT NULL,
    sequence_start_id bigint,
    sequence_start_price numeric(20,8) NOT NULL,
    current_price numeric(20,8) NOT NULL,
    percent_threshold numeric(5,2) DEFAULT 0.10,
    percent_increase numeric(10,4),
    highest_price_recorded numeric(20,8),
    lowest_price_recorded numeric(20,8),
    procent_change_from_highest_price_recorded numeric(10,4) DEFAULT 0.0,
    percent_increase_from_lowest numeric(10,4) DEFAULT 0.0,
    price_cycle bigint NOT NULL,
    created_at timestamp NOT NULL,
    processed_at timestamp DEFAULT now(),
    highest_climb double precision,
    highest_climb_01 numeric(10,4),
    highest_climb_02 numeric(10,4),
    highest_climb_03 numeric(10,4),
    highest_climb_04 numeric(10,4),
    highest_climb_05 numeric(10,4),
    PRIMARY KEY (id)
);
CREATE INDEX ON price_analysis (coin_id);
CREATE INDEX ON price_analysis (created_at);
CREATE INDEX ON price_analysis (price_cycle);
CREATE TABLE wallet_profiles (
    id bigserial,
    wallet_address varchar(255) NOT NULL,
    threshold numeric(5,2) NOT NULL,
    trade_id bigint NOT NULL,
    trade_timestamp timestamp NOT NULL,
    price_cycle bigint NOT NULL,
    price_cycle_start_time timestamp,
    price_cycle_end_time timestamp,
    trade_entry_price_org numeric(20,8) NOT NULL,
    stablecoin_amount double precision,
    trade_entry_price numeric(20,8) NOT NULL,
    sequence_start_price numeric(20,8) NOT NULL,
    highest_price_reached numeric(20,8) NOT NULL,
    lowest_price_reached numeric(20,8) NOT NULL,
    long_short varchar(10),
    short smallint DEFAULT 2,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id),
    UNIQUE (trade_id, threshold)
);
CREATE INDEX ON wallet_profiles (price_cycle);
CREATE INDEX ON wallet_profiles (short);
CREATE INDEX ON wallet_profiles (threshold);
CREATE INDEX ON wallet_profiles (trade_timestamp);
CREATE INDEX ON wallet_profiles (wallet_address);
CREATE TABLE buyin_trail_minutes (
    buyin_id bigint NOT NULL, minute smallint NOT NULL, created_at timestamp DEFAULT now(),
    sub_minute smallint NOT NULL DEFAULT 0, pm_price_change_1m double precision,
    pm_momentum_volatility_ratio double precision, pm_momentum_acceleration_1m double precision,
    pm_price_change_5m double precision, pm_price_change_10m double precision,
    pm_volatility_pct double precision, pm_body_range_ratio double precision,
    pm_volatility_surge_ratio double precision, pm_price_stddev_pct double precision,
    pm_trend_consistency_3m double precision, pm_cumulative_return_5m double precision,
    pm_candle_body_pct double precision, pm_upper_wick_pct double precision,
    pm_lower_wick_pct double precision, pm_wick_balance_ratio double precision,
    pm_price_vs_ma5_pct double precision, pm_breakout_strength_10m double precision,
    pm_open_price double precision, pm_high_price double precision, pm_low_price double precision,
    pm_close_price double precision, pm_avg_price double precision, pm_price_velocity_1m double precision,
    pm_price_velocity_30s double precision, pm_velocity_acceleration double precision,
    pm_momentum_persistence double precision, pm_realized_vol_1m double precision,
    pm_vol_of_vol double precision, pm_volatility_regime smallint, pm_trend_strength_ema double precision,
    pm_price_vs_vwap_pct double precision, pm_price_vs_twap_pct double precision, pm_higher_highs_5m smallint,
    pm_higher_lows_5m smallint, pm_dist_resistance_pct double precision, pm_dist_support_pct double precision,
    pm_breakout_imminence double precision, ob_mid_price double precision,
    ob_price_change_1m double precision, ob_price_change_5m double precision,
    ob_price_change_10m double precision, ob_volume_imbalance double precision,
    ob_imbalance_shift_1m double precision, ob_imbalance_trend_3m double precision,
    ob_depth_imbalance_ratio double precision, ob_bid_liquidity_share_pct double precision,
    ob_ask_liquidity_share_pct double precision, ob_depth_imbalance_pct double precision,
    ob_total_liquidity double precision, ob_liquidity_change_3m double precision,
    ob_microprice_deviation double precision, ob_microprice_acceleration_2m double precision,
    ob_spread_bps double precision, ob_aggression_ratio double precision, ob_vwap_spread_bps double precision,
    ob_net_flow_5m double precision, ob_net_flow_to_liquidity_ratio double precision, ob_sample_count integer,
    ob_coverage_seconds integer, ob_imbalance_velocity_1m double precision,
    ob_imbalance_velocity_30s double precision, ob_imbalance_acceleration double precision,
    ob_bid_depth_velocity double precision, ob_ask_depth_velocity double precision,
    ob_depth_ratio_velocity double precision, ob_spread_velocity double precision,
    ob_spread_percentile_1h double precision, ob_liquidity_score double precision,
    ob_liquidity_gap_score double precision, ob_liquidity_concentration double precision,
    ob_cumulative_imbalance_5m double precision, ob_imbalance_consistency_5m double precision,
    tx_buy_sell_pressure double precision, tx_buy_volume_pct double precision,
    tx_sell_volume_pct double precision, tx_pressure_shift_1m double precision,
    tx_pressure_trend_3m double precision, tx_long_short_ratio double precision,
    tx_long_volume_pct double precision, tx_short_volume_pct double precision,
    tx_perp_position_skew_pct double precision, tx_long_ratio_shift_1m double precision,
    tx_perp_dominance_pct double precision, tx_total_volume_usd double precision,
    tx_volume_acceleration_ratio double precision, tx_volume_surge_ratio double precision,
    tx_whale_volume_pct double precision, tx_avg_trade_size double precision,
    tx_trades_per_second double precision, tx_buy_trade_pct double precision,
    tx_price_change_1m double precision, tx_price_volatility_pct double precision,
    tx_cumulative_buy_flow_5m double precision, tx_trade_count integer, tx_large_trade_count integer,
    tx_vwap double precision, tx_volume_velocity double precision, tx_volume_acceleration double precision,
    tx_volume_percentile_1h double precision, tx_cumulative_delta double precision,
    tx_cumulative_delta_5m double precision, tx_delta_divergence double precision,
    tx_trade_intensity double precision, tx_intensity_velocity double precision,
    tx_large_trade_intensity double precision, tx_vpin_estimate double precision,
    tx_order_flow_toxicity double precision, tx_kyle_lambda double precision,
    tx_aggressive_buy_ratio double precision, tx_aggressive_sell_ratio double precision,
    tx_aggression_imbalance double precision, wh_net_flow_ratio double precision,
    wh_flow_shift_1m double precision, wh_flow_trend_3m double precision,
    wh_accumulation_ratio double precision, wh_strong_accumulation double precision,
    wh_cumulative_flow_5m double precision, wh_total_sol_moved double precision,
    wh_inflow_share_pct double precision, wh_outflow_share_pct double precision,
    wh_net_flow_strength_pct double precision, wh_strong_accumulation_pct double precision,
    wh_strong_distribution_pct double precision, wh_activity_surge_ratio double precision,
    wh_movement_count integer, wh_massive_move_pct double precision, wh_avg_wallet_pct_moved double precision,
    wh_largest_move_dominance double precision, wh_distribution_pressure_pct double precision,
    wh_outflow_surge_pct double precision, wh_movement_imbalance_pct double precision,
    wh_inflow_sol double precision, wh_outflow_sol double precision, wh_net_flow_sol double precision,
    wh_inflow_count integer, wh_outflow_count integer, wh_massive_move_count integer,
    wh_max_move_size double precision, wh_strong_distribution double precision,
    wh_flow_velocity double precision, wh_flow_acceleration double precision,
    wh_cumulative_flow_10m double precision, wh_stealth_acc_score double precision,
    wh_distribution_urgency double precision, wh_activity_regime smallint,
    wh_time_since_large double precision, wh_large_freq_5m double precision,
    pat_breakout_score double precision, pat_detected_count integer, pat_detected_list varchar(255),
    pat_asc_tri_detected boolean, pat_asc_tri_confidence double precision,
    pat_asc_tri_resistance_level double precision, pat_asc_tri_support_level double precision,
    pat_asc_tri_compression_ratio double precision, pat_bull_flag_detected boolean,
    pat_bull_flag_confidence double precision, pat_bull_flag_pole_height_pct double precision,
    pat_bull_flag_retracement_pct double precision, pat_bull_pennant_detected boolean,
    pat_bull_pennant_confidence double precision, pat_bull_pennant_compression_ratio double precision,
    pat_fall_wedge_detected boolean, pat_fall_wedge_confidence double precision,
    pat_fall_wedge_contraction double precision, pat_cup_handle_detected boolean,
    pat_cup_handle_confidence double precision, pat_cup_handle_depth_pct double precision,
    pat_inv_hs_detected boolean, pat_inv_hs_confidence double precision, pat_inv_hs_neckline double precision,
    pat_swing_trend varchar(20), pat_swing_higher_lows boolean, pat_swing_lower_highs boolean,
    mp_volume_divergence_detected boolean, mp_volume_divergence_confidence double precision,
    mp_order_book_squeeze_detected boolean, mp_order_book_squeeze_confidence double precision,
    mp_whale_stealth_accumulation_detected boolean, mp_whale_stealth_accumulation_confidence double precision,
    mp_momentum_acceleration_detected boolean, mp_momentum_acceleration_confidence double precision,
    mp_microstructure_shift_detected boolean, mp_microstructure_shift_confidence double precision,
    sp_price_count integer, sp_min_price double precision, sp_max_price double precision,
    sp_start_price double precision, sp_end_price double precision, sp_price_range_pct double precision,
    sp_total_change_pct double precision, sp_volatility_pct double precision, sp_avg_price double precision,
    btc_price_change_1m double precision, btc_price_change_5m double precision,
    btc_price_change_10m double precision, btc_volatility_pct double precision,
    btc_open_price double precision, btc_close_price double precision, eth_price_change_1m double precision,
    eth_price_change_5m double precision, eth_price_change_10m double precision,
    eth_volatility_pct double precision, eth_open_price double precision, eth_close_price double precision,
    xa_btc_sol_corr_1m double precision, xa_btc_sol_corr_5m double precision,
    xa_btc_leads_sol_1 double precision, xa_btc_leads_sol_2 double precision,
    xa_sol_beta_btc double precision, xa_eth_sol_corr_1m double precision,
    xa_eth_leads_sol_1 double precision, xa_sol_beta_eth double precision,
    xa_btc_sol_divergence double precision, xa_eth_sol_divergence double precision,
    xa_momentum_alignment double precision, ts_price_change_30s double precision,
    ts_volume_30s double precision, ts_buy_sell_pressure_30s double precision,
    ts_imbalance_30s double precision, ts_trade_count_30s integer, ts_momentum_30s double precision,
    ts_volatility_30s double precision, mm_probability double precision, mm_direction double precision,
    mm_confidence double precision, mm_expected_timeframe double precision,
    mm_order_flow_score double precision, mm_whale_alignment double precision,
    mm_momentum_quality double precision, mm_volatility_regime double precision,
    mm_cross_asset_score double precision, mm_false_signal_risk double precision,
    mm_adverse_selection double precision, mm_slippage_estimate double precision,
    pre_entry_price_1m_before double precision, pre_entry_price_2m_before double precision,
    pre_entry_price_3m_before double precision, pre_entry_price_5m_before double precision,
    pre_entry_price_10m_before double precision, pre_entry_change_1m double precision,
    pre_entry_change_2m double precision, pre_entry_change_3m double precision,
    pre_entry_change_5m double precision, pre_entry_change_10m double precision, pre_entry_trend text,
    PRIMARY KEY (buyin_id, minute, sub_minute)
);
CREATE INDEX ON buyin_trail_minutes (buyin_id);
CREATE INDEX ON buyin_trail_minutes (buyin_id, mm_probability, mm_direction);
CREATE INDEX ON buyin_trail_minutes (created_at);
CREATE INDEX ON buyin_trail_minutes (minute);
CREATE INDEX ON buyin_trail_minutes (mm_probability);
CREATE INDEX ON buyin_trail_minutes (pat_breakout_score);
CREATE TABLE trade_filter_values (
    id bigserial,
    buyin_id bigint NOT NULL,
    minute integer NOT NULL,
    sub_minute integer DEFAULT 0,
    filter_name varchar(100) NOT NULL,
    filter_value double precision,
    is_ratio smallint DEFAULT 0,
    section varchar(50),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id),
    UNIQUE (buyin_id, minute, sub_minute, filter_name)
);
CREATE INDEX ON trade_filter_values (buyin_id);
CREATE INDEX ON trade_filter_values (filter_name);
CREATE INDEX ON trade_filter_values (is_ratio);
CREATE INDEX ON trade_filter_values (minute);
CREATE INDEX ON trade_filter_values (section);
CREATE TABLE job_execution_metrics (
    id bigserial,
    job_id varchar(100) NOT NULL,
    started_at timestamp NOT NULL,
    ended_at timestamp NOT NULL,
    duration_ms double precision NOT NULL,
    status varchar(20) NOT NULL,
    error_message varchar(500),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE INDEX ON job_execution_metrics (job_id);
CREATE INDEX ON job_execution_metrics (job_id, started_at);
CREATE INDEX ON job_execution_metrics (started_at);
CREATE TABLE follow_the_goat_plays (
    id integer NOT NULL,
    created_at timestamp DEFAULT now(),
    find_wallets_sql jsonb,
    max_buys_per_cycle integer DEFAULT 1,
    sell_logic jsonb,
    live_trades integer DEFAULT 0,
    name varchar(60),
    description varchar(500),
    sorting integer DEFAULT 10,
    short_play integer DEFAULT 0,
    tricker_on_perp jsonb,
    timing_conditions jsonb,
    bundle_trades jsonb,
    play_log jsonb,
    cashe_wallets jsonb,
    cashe_wallets_settings jsonb,
    pattern_validator jsonb,
    pattern_validator_enable integer DEFAULT 0,
    pattern_update_by_ai integer DEFAULT 1,
    pattern_version_id integer,
    is_active integer DEFAULT 1,
    project_id integer,
    project_ids jsonb,
    project_version integer,
    PRIMARY KEY (id)
);
CREATE TABLE follow_the_goat_tracking (
    id integer NOT NULL,
    wallet_address varchar(255) NOT NULL,
    last_trade_id bigint DEFAULT 0,
    last_checked_at timestamp DEFAULT now(),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE pattern_config_projects (
    id integer NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE pattern_config_filters (
    id integer NOT NULL,
    project_id integer,
    name varchar(255) NOT NULL,
    section varchar(100),
    minute smallint,
    field_name varchar(100) NOT NULL,
    field_column varchar(100),
    from_value numeric(20,8),
    to_value numeric(20,8),
    include_null smallint DEFAULT 0,
    exclude_mode smallint DEFAULT 0,
    play_id integer,
    is_active smallint DEFAULT 1,
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE wallet_profiles_state (
    threshold numeric(5,2) NOT NULL,
    total_profiles bigint DEFAULT 0,
    last_updated timestamp DEFAULT now(),
    PRIMARY KEY (threshold)
);
CREATE TABLE filter_fields_catalog (
    id integer NOT NULL,
    field_name varchar(100) NOT NULL,
    section varchar(100),
    minute smallint,
    field_type varchar(50) DEFAULT 'numeric',
    description text,
    column_name varchar(100),
    column_prefix varchar(20),
    data_type varchar(50),
    value_type varchar(50),
    is_filterable boolean DEFAULT true,
    display_order integer,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE filter_reference_suggestions (
    id integer NOT NULL,
    filter_field_id integer,
    column_name varchar(100) NOT NULL,
    from_value double precision,
    to_value double precision,
    total_trades integer,
    good_trades_before integer,
    bad_trades_before integer,
    good_trades_after integer,
    bad_trades_after integer,
    good_trades_kept_pct double precision,
    bad_trades_removed_pct double precision,
    bad_negative_count integer,
    bad_0_to_01_count integer,
    bad_01_to_02_count integer,
    bad_02_to_03_count integer,
    analysis_hours integer,
    minute_analyzed integer,
    section varchar(100),
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE filter_combinations (
    id integer NOT NULL,
    combination_name varchar(255),
    filter_count integer,
    filter_ids text,
    filter_columns text,
    total_trades integer,
    good_trades_before integer,
    bad_trades_before integer,
    good_trades_after integer,
    bad_trades_after integer,
    good_trades_kept_pct double precision,
    bad_trades_removed_pct double precision,
    best_single_bad_removed_pct double precision,
    improvement_over_single double precision,
    bad_negative_count integer,
    bad_0_to_01_count integer,
    bad_01_to_02_count integer,
    bad_02_to_03_count integer,
    analysis_hours integer,
    minute_analyzed integer,
    created_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
CREATE TABLE ai_play_updates (
    id integer NOT NULL,
    play_id integer NOT NULL,
    play_name varchar(255),
    project_id integer,
    project_name varchar(255),
    pattern_count integer DEFAULT 0,
    filters_applied integer DEFAULT 0,
    run_id varchar(50),
    status varchar(50) DEFAULT 'success',
    updated_at timestamp DEFAULT now(),
    PRIMARY KEY (id)
);
