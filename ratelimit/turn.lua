-- TURN keeps what all gateways share in the Redis: which of them are alive, and which
-- organisations have open reservations, so that any gateway can sweep after any other.
--
--   KEYS  gateways, organisations, turns
--   ARGV  1 name of this gateway; empty: it only registers organisations; "-name": it leaves
--         2 ms after which a gateway is gone · 3 most turns to take · 4 ms between turns
--         5 ms after which a silent organisation may be forgotten · 6 how many follow that have calls
--         7... organisations with calls, then those with nothing open
--
-- Returns {gateways, ms of now and of when this gateway was here before (0: never), and the
-- organisations to sweep now}. Whoever gets one has its turn.

local name, most, last, before = ARGV[1], ARGV[3] + 0, 6 + ARGV[6], 0
for i = 7, last do
  call('ZADD', KEYS[2], now_ms, ARGV[i])
  call('ZADD', KEYS[3], 'NX', 0, ARGV[i])
end
for i = last + 1, #ARGV do
  local seen = call('ZSCORE', KEYS[2], ARGV[i])
  if seen and seen + ARGV[5] < now_ms then
    call('ZREM', KEYS[2], ARGV[i])
    call('ZREM', KEYS[3], ARGV[i])
  end
end
if string.sub(name, 1, 1) == '-' then
  call('ZREM', KEYS[1], string.sub(name, 2))
elseif name ~= '' then
  before = call('ZSCORE', KEYS[1], name) or 0
  call('ZADD', KEYS[1], now_ms, name)
end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms - ARGV[2])
local reply = {call('ZCARD', KEYS[1]), now_ms, before + 0}
if most <= 0 then return reply end
for _, org in ipairs(call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms - ARGV[4], 'LIMIT', 0, most)) do
  call('ZADD', KEYS[3], now_ms, org)
  reply[#reply + 1] = org
end
return reply
