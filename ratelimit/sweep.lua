-- SWEEP settles the calls of one slot whose gateway has died.
--
--   KEYS  open reservations, rows that are owed
--   ARGV  1 slot · 2 ledger's shelf, or empty · 3 most reservations to look at · 4 ms to answer
--         5 seconds that lost calls and owed rows are kept · 6... ids whose owed row has been posted
--
-- Returns {settled, looked at, still open, and for each owed row: id, organisation, row}.

local function finish(keys, states, value, rid, used, to, keep)
  local newer
  --#finish
end

-- sweep settles reservations whose lease has expired, at what they were last known to have
-- used. The first time it sees one it only asks: a lease also expires when the clock jumps and
-- while Redis is away, and whoever is alive renews it before the time to answer is over.
-- Without a shelf for rows, rows are owed: kept until somebody has posted them elsewhere.
local function sweep(slot, shelf, limit, answer_ms, held)
  local open, swept, seen = slot .. ':open', 0, 0
  for _, rid in ipairs(call('ZRANGEBYSCORE', open, '-inf', now_ms, 'LIMIT', 0, limit)) do
    local rkey = slot .. ':r:' .. rid
    local value = call('GET', rkey)
    seen = seen + 1
    if not value or sub(value, 1, 4) ~= 'open' then
      call('ZREM', open, rid)
    elseif sub(value, ASKED, ASKED) == '0' then
      call('SETRANGE', rkey, ASKED - 1, '1')
      call('ZADD', open, now_ms + answer_ms, rid)
    else
      local row, org = unpacked('<I2c0I2c0', value, TEXTS)
      local used = sub(value, USED, USED + COST_SIZE - 1)
      finish({rkey, open}, {}, value, rid, used, 'lost' .. sub(value, ASKED), held)
      swept = swept + 1
      if row ~= '' then
        local requests, input, output, frames, _, money = unpacked(COST, used)
        row = ledger_used(row, requests, input, output, frames, money)
        if shelf ~= '' then
          ledger_post(shelf, now, row)
        else
          call('SET', slot .. ':w:' .. rid, pack('<I2c0', #org, org) .. row, 'EX', held)
          call('ZADD', slot .. ':owed', now_ms, rid)
        end
      end
    end
  end
  return swept, seen
end

local slot, shelf, most = ARGV[1], ARGV[2], ARGV[3] + 0
for i = 6, #ARGV do
  call('ZREM', KEYS[2], ARGV[i])
  call('DEL', slot .. ':w:' .. ARGV[i])
end
local swept, seen = sweep(slot, shelf, most, ARGV[4], ARGV[5])
local reply, n = {swept, seen, call('ZCARD', KEYS[1])}, 3
if shelf ~= '' then return reply end
for _, rid in ipairs(call('ZRANGE', KEYS[2], 0, most - 1)) do
  local value = call('GET', slot .. ':w:' .. rid)
  if value then
    local org, pos = unpacked('<I2c0', value)
    reply[n + 1], reply[n + 2], reply[n + 3] = rid, org, sub(value, pos)
    n = n + 3
  else
    call('ZREM', KEYS[2], rid)
  end
end
return reply
