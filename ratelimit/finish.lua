-- What ends reservations. It stands behind lib.lua and the ledger's functions, in front of the
-- scripts that need it.

local sub = string.sub

local function is_open(value) return value and sub(value, 1, 4) == 'open' end
local function is_lost(value) return value and sub(value, 1, 4) == 'lost' end

-- rules_at is where the rules of a reservation begin.
local function rules_at(value)
  local pos = TEXTS + 2 + unpacked('<I2', value, TEXTS)
  return pos + 2 + unpacked('<I2', value, pos)
end

-- texts are the row and the organisation of a reservation.
local function texts(value) return unpacked('<I2c0I2c0', value, TEXTS) end

-- of_dimension unpacks a cost into a table by dimension.
local function of_dimension(value, pos)
  local requests, input, output, frames, bytes, money = unpacked(COST, value, pos)
  return {[0] = requests, input + output, input, output, frames, bytes, money}
end

-- returned is what comes back of what was taken, less what was used; below 0 it is owed. What
-- was taken in an earlier calendar period does not come back to a bucket of this one.
local function returned(b, back, reserved_at)
  if back > 0 and b[KIND] ~= STEADY and older(b[KIND], reserved_at, b[AT]) then return 0 end
  return back
end

-- finish replaces what an open reservation took, or what a lost one was settled at, by what was
-- used, frees its places and leaves only its state behind. The first write frees memory: Redis
-- then lets a script finish even at its memory limit. newer are the rules as they are by now,
-- packed, if they have changed.
local function finish(rkey, value, open, rid, used, state, keep, newer)
  local list, keys = rules(value, rules_at(value), #value - 8)
  if newer then list = rules(newer, 1, #newer) end
  local reserved_at = unpacked('<d', value, #value - 7)
  used = of_dimension(used, 1)
  local before = is_lost(value) and of_dimension(value, USED)
  local states = keys[1] and call('MGET', unpack(keys))
  call('ZREM', open, rid)
  for i, b in ipairs(list) do
    if b[KIND] == PLACES then
      call('ZREM', b[KEY], rid)
    else
      local back = (before and before[b[DIM]] or b[NEED]) - used[b[DIM]]
      if b[HARD] == 1 and not before then back = back + of_dimension(value, MORE)[b[DIM]] end
      if back ~= 0 then
        refill(b, states[i])
        b[LEVEL] = math.max(b[LEVEL] + returned(b, back, reserved_at), DEEPEST)
        if b[LEVEL] >= b[FULL] then b[LEVEL], b[FRACTION] = b[FULL], 0 end
        store(b)
      end
    end
  end
  if state then call('SET', rkey, state, 'EX', keep) else call('DEL', rkey) end
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
    if not is_open(value) then
      call('ZREM', open, rid)
    elseif sub(value, ASKED, ASKED) == '0' then
      call('SETRANGE', rkey, ASKED - 1, '1')
      call('ZADD', open, now_ms + answer_ms, rid)
    else
      local row, org = texts(value)
      local used = sub(value, USED, USED + COST_SIZE - 1)
      finish(rkey, value, open, rid, used, 'lost' .. sub(value, ASKED), held)
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
