-- RENEW tells that a call's gateway is alive, and what the call has used so far.
--
--   KEYS  reservation, open reservations, then the places that the call holds
--   ARGV  1 id, escaped · 2 lease in ms · 3 what was used so far, packed
--         4 seconds that the id is remembered
--
-- Returns 1, 2 when the reservation is unknown, 3 when its gateway was taken for dead, or 0 when it
-- was settled.

local state = call('GETRANGE', KEYS[1], 0, 3)
if state ~= 'open' then return state == '' and 2 or state == 'lost' and 3 or 0 end
local rid, lease_ms = ARGV[1], ARGV[2] + 0
call('SETRANGE', KEYS[1], ASKED - 1, '0' .. ARGV[3])
call('EXPIRE', KEYS[1], ARGV[4])
call('ZADD', KEYS[2], now_ms + lease_ms, rid)
for i = 3, #KEYS do call('ZADD', KEYS[i], now_ms + lease_ms, rid) end
return 1
