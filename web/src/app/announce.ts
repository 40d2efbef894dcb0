import { useEffect, useEffectEvent, useRef } from 'react';
import { useNavigate } from 'react-router';
import { useEnvironments } from '@/api/queries';
import { useAttention } from './attention';
import { livingSessions } from './status';
import { news, notify, sayWhenVisible, type Moment } from './notify';
import { useUnseen } from './seen';

/** What the browser's tab and its notifications say of what waits; shows nothing in the page itself. */
export function Announcements(): null {
  const waiting = useAttention();
  const { data } = useEnvironments();
  const unseen = useUnseen();
  const navigate = useNavigate();
  const before = useRef<Moment>(undefined);
  useEffect(sayWhenVisible, []);

  const needed = waiting.length > 0;
  useEffect(() => {
    document
      .querySelector('link[rel=icon]')
      ?.setAttribute('href', needed ? '/favicon-needs.svg' : '/favicon.svg');
  }, [needed]);
  useEffect(() => () => document.querySelector('link[rel=icon]')?.setAttribute('href', '/favicon.svg'), []);

  const tell = useEffectEvent((now: Moment) => {
    const notices = news(before.current, now);
    before.current = now;
    void notify(notices, (to) => void navigate(to));
  });
  useEffect(() => {
    if (data) tell({ waiting, finished: livingSessions(data).filter((one) => unseen(one)) });
    // Looking at a session makes nothing new: only what the server says does.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [waiting, data]);
  return null;
}
